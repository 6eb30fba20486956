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


def test_word(tmp_path: Path, read: Read) -> None:
    pytest.importorskip("markitdown")
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


def test_excel(tmp_path: Path, read: Read) -> None:
    pytest.importorskip("markitdown")
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["name", "价格"])
    book.active.append(["apple", 3])
    book.save(tmp_path / "a.xlsx")
    (document,), _ = read(tmp_path)
    assert "| apple | 3 |" in document.text
    assert "价格" in document.text


def test_a_zip_bomb_is_refused_before_it_is_opened(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("markitdown")
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
