from __future__ import annotations

import gzip
import json
import multiprocessing
import pickle
from pathlib import Path

import pytest

from ownlm.corpus.discover import discover
from ownlm.corpus.documents import Document
from ownlm.corpus.readers import ReadSettings, plan_tasks, read_task, tasks


def rows(number: int) -> str:
    return "".join(json.dumps({"text": f"文档 {i} " + "word " * (i % 40)}) + "\n" for i in range(number))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Big and small files of every way of reading, with small limits."""
    for name, value in (("SMALL", 2000), ("SMALL_COMPRESSED", 500), ("BLOCK", 8000)):
        monkeypatch.setattr(tasks, name, value)
    monkeypatch.setattr(tasks, "lines", lambda chunks: tasks_lines(chunks, 8000))
    monkeypatch.setattr(tasks, "paragraphs", lambda chunks: tasks_paragraphs(chunks, 8000))
    (tmp_path / "big.jsonl.gz").write_bytes(gzip.compress(rows(900).encode()))
    (tmp_path / "big.csv").write_text("text,n\n" + "".join(f'"row {i}\nmore",{i}\n' for i in range(900)))
    (tmp_path / "big.txt").write_text("".join(f"paragraph {i}\n\n" for i in range(3000)))
    (tmp_path / "no_column.csv").write_text("a,b\n" + "1,2\n" * 2000)
    for i in range(20):
        (tmp_path / f"small{i:02}.txt").write_text(f"text {i}\n" * 50)
    return tmp_path


tasks_lines, tasks_paragraphs = tasks.lines, tasks.paragraphs


def test_tasks_cover_every_byte_and_every_document(folder: Path) -> None:
    files = discover([folder]).files
    planned = list(plan_tasks(files, ReadSettings()))
    assert [task.index for task in planned] == list(range(len(planned)))
    assert sum(task.source_bytes for task in planned) == sum(file.size for file in files)
    assert sum(task.block is not None for task in planned) > 5
    assert sum(task.items is not None for task in planned) > 2
    documents = [i for task in planned for i in read_task(task) if isinstance(i, Document)]
    by_name: dict[str, list[Document]] = {}
    for document in documents:
        by_name.setdefault(Path(document.source).name, []).append(document)
    assert len(by_name["big.jsonl.gz"]) == len(by_name["big.csv"]) == 900
    assert [d.line for d in by_name["big.jsonl.gz"]] == list(range(1, 901))
    assert [d.line for d in by_name["big.csv"]] == list(range(2, 1802, 2))
    assert "".join(d.text for d in by_name["big.txt"]) == (folder / "big.txt").read_text()
    assert sum(name.startswith("small") for name in by_name) == 20


def test_a_table_without_the_column_is_one_drop(folder: Path) -> None:
    (file,) = [f for f in discover([folder]).files if "no_column" in f.path]
    (task,) = plan_tasks([file], ReadSettings())
    (item,) = read_task(task)
    assert (item.reason, item.bytes) == ('no column "text"', file.size)  # type: ignore[union-attr]


def test_planning_twice_gives_the_same(folder: Path) -> None:
    files = discover([folder]).files
    assert list(plan_tasks(files, ReadSettings())) == list(plan_tasks(files, ReadSettings()))


def test_a_file_read_whole_and_in_blocks_gives_the_same(folder: Path) -> None:
    for file in discover([folder]).files:
        in_tasks = [item for task in plan_tasks([file], ReadSettings()) for item in read_task(task)]
        assert in_tasks == list(tasks.read_file(file, ReadSettings()))


def _read_pickled(data: bytes) -> list[tuple[str, int]]:
    return [(item.text, item.line) for item in read_task(pickle.loads(data)) if isinstance(item, Document)]


def test_tasks_travel_to_spawned_processes(folder: Path) -> None:
    settings = ReadSettings(group_by=r"re:(small\d)")
    planned = list(plan_tasks(discover([folder]).files, settings))
    some = [
        planned[0],
        next(t for t in planned if t.block),
        next(t for t in planned if not t.items and not t.block),
    ]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        read = pool.map(_read_pickled, [pickle.dumps(task) for task in some])
    assert read == [_read_pickled(pickle.dumps(task)) for task in some]
