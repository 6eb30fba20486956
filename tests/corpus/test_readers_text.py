from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ownlm.corpus.discover import discover
from ownlm.corpus.readers import ReadSettings, blocks, plan_tasks, read_task
from tests.corpus.conftest import Read


def test_a_file_is_a_document(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.txt").write_text("first\nsecond\n")
    (tmp_path / "b.py").write_text("def größe():\n    pass\n", encoding="utf-8")
    documents, dropped = read(tmp_path)
    assert [(d.text, d.line, d.part, d.kind) for d in documents] == [
        ("first\nsecond\n", 1, 0, "text"),
        ("def größe():\n    pass\n", 1, 0, "text"),
    ]
    assert documents[0].source == (tmp_path / "a.txt").as_posix()
    assert dropped == []


def test_lines_as_documents_keep_their_numbers(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.txt").write_bytes("一\r\n\r\n  \r\n二\r\n三".encode())
    documents, _ = read(tmp_path / "a.txt", documents="line")
    assert [(d.text, d.line) for d in documents] == [("一", 1), ("二", 4), ("三", 5)]


def test_blank_files_are_dropped_with_a_reason(tmp_path: Path, read: Read) -> None:
    (tmp_path / "blank.txt").write_text(" \n\n")
    documents, dropped = read(tmp_path)
    assert documents == []
    assert [(Path(d.where).name, d.reason) for d in dropped] == [("blank.txt:1", "empty text")]


def test_giant_texts_are_cut_at_paragraphs(tmp_path: Path, read: Read) -> None:
    paragraph = "".join(f"line {i} of a paragraph, 段落\n" for i in range(2000)) + "\n"
    text = paragraph * 400
    (tmp_path / "big.txt").write_text(text, encoding="utf-8")
    documents, dropped = read(tmp_path / "big.txt")
    assert "".join(d.text for d in documents) == text
    assert [d.part for d in documents] == list(range(1, len(documents) + 1))
    assert len(documents) == -(-len(text.encode()) // blocks.BLOCK)
    assert all(len(d.text.encode()) <= blocks.BLOCK for d in documents)
    assert all(d.text.endswith("\n\n") for d in documents)
    position = 0
    for document in documents:
        assert document.line == text.count("\n", 0, position) + 1
        position += len(document.text)
    assert dropped == []


@pytest.mark.parametrize(
    "text", ["没有换行的文字" * 100, "words without line ends " * 40, "x" * 1000, "é" * 600]
)
@pytest.mark.parametrize("chunk", [1, 7, 64, 5000])
def test_pieces_never_cut_a_character(text: str, chunk: int) -> None:
    data = text.encode()
    pieces = list(blocks.paragraphs((data[i : i + chunk] for i in range(0, len(data), chunk)), size=100))
    assert "".join(piece.data.decode() for piece in pieces) == text
    assert all(len(piece.data) <= 100 for piece in pieces)


@pytest.mark.parametrize("chunk", [1, 13, 64, 5000])
def test_blocks_of_lines_are_whole_and_numbered(chunk: int) -> None:
    data = b"".join(b"%d\n" % i + b"y" * (i % 90) + b"\n" for i in range(200))
    found = list(blocks.lines((data[i : i + chunk] for i in range(0, len(data), chunk)), size=256))
    assert b"".join(block.data for block in found) == data
    assert all(block.data.endswith(b"\n") for block in found)
    line = 1
    for block in found:
        assert block.line == line
        line += block.data.count(b"\n")


def test_a_line_over_the_limit_is_dropped_and_numbers_go_on() -> None:
    data = b"one\n" + b"x" * 900 + b"\nthree\n"
    found = list(blocks.lines((data[i : i + 50] for i in range(0, len(data), 50)), size=100, longest=400))
    assert [(b.line, b.data, b.too_long) for b in found] == [
        (1, b"one\n", False),
        (2, b"", True),
        (3, b"three\n", False),
    ]


def test_stdin(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("天地\nplain".encode("utf-8-sig"))))
    documents, _ = read("-")
    assert [(d.text, d.source, d.encoding) for d in documents] == [("天地\nplain", "<stdin>", "utf-8-sig")]


def test_stdin_may_be_compressed(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    import lzma

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lzma.compress(b"packed words"))))
    assert read("-")[0][0].text == "packed words"


def test_broken_bytes_are_replaced_and_counted(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.txt").write_bytes("很多中文文字，都没有问题。".encode() * 50 + b"\xfe" + "结束。".encode())
    (document,), _ = read(tmp_path / "a.txt")
    assert document.replaced == 1
    assert document.text.endswith("\ufffd结束。")


def test_a_genuine_replacement_character_is_not_counted(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.txt").write_bytes("是 \ufffd 吗？".encode())
    assert read(tmp_path / "a.txt")[0][0].replaced == 0


def test_groups_by_folder_and_by_expression(tmp_path: Path, read: Read) -> None:
    for name in ("p1/a.txt", "p1/b.txt", "p2/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    documents, _ = read(tmp_path, group_by="folder")
    assert [Path(d.group or "").name for d in documents] == ["p1", "p1", "p2"]
    documents, _ = read(tmp_path, group_by=r"re:/(p[0-9])/[ab]")
    assert [d.group for d in documents] == ["p1", "p1", None]


def test_a_mixed_folder_loses_nothing_silently(tmp_path: Path, read: Read) -> None:
    (tmp_path / "ok.txt").write_text("fine")
    (tmp_path / "gb.txt").write_bytes("今天天气很好，我们去公园散步。".encode("gb18030"))
    (tmp_path / "later.txt").write_bytes(
        b"a" * 9000 + bytes(range(1, 9)) * 4000
    )  # text only at its beginning
    (tmp_path / "bad.jsonl").write_text("nonsense\n")
    (tmp_path / "empty.txt").touch()
    documents, dropped = read(tmp_path)
    assert [d.text[:8] for d in documents] == ["今天天气很好，我", "fine"]
    assert {Path(d.where).name: d.reason for d in dropped} == {
        "bad.jsonl:1": "not JSON",
        "later.txt": "not text: too many control characters",
    }
    assert [n.reason for n in discover([tmp_path]).not_read] == ["empty file"]


def test_a_file_that_vanishes_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    files = discover([tmp_path]).files
    (tmp_path / "a.txt").unlink()
    (item,) = [item for task in plan_tasks(files, ReadSettings()) for item in read_task(task)]
    assert item.reason == "cannot be read"  # type: ignore[union-attr]
