from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.readers import office
from tests.corpus.conftest import Read

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
PART = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"


def docx(path: Path, *paragraphs: str) -> None:
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{TYPES}"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{PART}"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" Type="{OFFICE}" '
            'Target="word/document.xml"/></Relationships>',
        )
        archive.writestr(
            "word/document.xml", f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
        )


@pytest.mark.clients
def test_word(tmp_path: Path, read: Read) -> None:
    docx(tmp_path / "a.docx", "First paragraph.", "第二段。")
    (tmp_path / "b.docx").write_bytes(b"PK\x03\x04 not an archive")
    docx(tmp_path / "c.docx")
    with zipfile.ZipFile(tmp_path / "d.docx", "w") as archive:
        archive.writestr("word/nothing.xml", "<x/>")
    documents, dropped = read(tmp_path)
    assert [(d.text, d.kind, d.line) for d in documents] == [("First paragraph.\n\n第二段。", "docx", 1)]
    assert [(Path(d.where).name, d.reason) for d in dropped] == [
        ("b.docx", "damaged docx"),
        ("c.docx", "empty text"),
        ("d.docx", "docx cannot be converted"),
    ]


@pytest.mark.clients
def test_excel(tmp_path: Path, read: Read) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["name", "价格"])
    book.active.append(["apple", 3])
    book.save(tmp_path / "a.xlsx")
    (document,), _ = read(tmp_path)
    assert "| apple | 3 |" in document.text
    assert "价格" in document.text


@pytest.mark.clients
def test_powerpoint(tmp_path: Path, read: Read) -> None:
    import pptx

    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "The river 河"
    deck.save(tmp_path / "a.pptx")
    (document,), _ = read(tmp_path)
    assert "The river 河" in document.text


def write_pdf(path: Path, text: str) -> None:
    """A PDF of one page with one line."""
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    table += b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(data))
    path.write_bytes(data + table + trailer)


@pytest.mark.clients
def test_pdf(tmp_path: Path, read: Read) -> None:
    write_pdf(tmp_path / "a.pdf", "The river runs to the sea")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 and then nothing")
    documents, dropped = read(tmp_path)
    assert [document.text.strip() for document in documents] == ["The river runs to the sea"]
    assert len(dropped) == 1 and Path(dropped[0].where).name == "b.pdf"


@pytest.mark.clients
def test_a_zip_bomb_is_refused_before_it_is_opened(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office, "_converter", lambda: pytest.fail("the converter saw it"))
    docx(tmp_path / "bomb.docx", "a" * (40 << 20))
    with zipfile.ZipFile(tmp_path / "many.docx", "w") as archive:
        for i in range(office.MAX_MEMBERS + 1):
            archive.writestr(str(i), "")
    documents, dropped = read(tmp_path)
    assert documents == []
    assert [d.reason for d in dropped] == ["docx that expands too far", "docx with more than 10,000 members"]
    assert dropped[0].bytes == (tmp_path / "bomb.docx").stat().st_size


def test_limits_of_one_file(tmp_path: Path) -> None:
    docx(tmp_path / "a.docx", "small")
    size = (tmp_path / "a.docx").stat().st_size
    assert office.over_limits(SourceFile(str(tmp_path / "a.docx"), size, "docx")) == ""
    assert office.over_limits(SourceFile("x.pdf", office.MAX_PDF + 1, "pdf")) == "pdf over 512 MB"
