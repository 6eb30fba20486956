"""`prepare` as a whole: the same corpus every time, whatever the workers, kills and restarts in between."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ownlm
from ownlm.console.errors import Interrupted, Refused
from ownlm.corpus import pipeline, staging
from ownlm.corpus.readers import ReadTask, tasks
from ownlm.corpus.shards import Corpus
from tests.corpus.texts import chinese, contents, english, folder_of

SETTINGS = {"vocab_size": 400}


@pytest.fixture(autouse=True)
def _many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "BATCH_FILES", 6)  # some tasks, though the texts are small


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_texts_come_back_from_the_shards(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "texts", 40)
    corpus = ownlm.prepare([str(folder)], output=tmp_path / "c", **SETTINGS)
    found = {}
    for name in ("train", "validation"):
        split = corpus.split(name)
        for number in range(split.num_documents):
            assert split.document(number)[0] == corpus.tokenizer.eos_id
            found[split.where(number)] = split.document_text(number)
            assert split.document_bytes[number] == len(found[split.where(number)].encode())
    expected = {f"{file.as_posix()}:1": file.read_text(encoding="utf-8") for file in folder.iterdir()}
    assert found == expected
    manifest = corpus.manifest
    assert manifest["splits"]["train"]["documents"] + manifest["splits"]["validation"]["documents"] == 40
    assert not (tmp_path / "c" / ".work").exists()


def test_one_and_two_workers_and_a_second_time_give_the_same_bytes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "texts", 30)
    for name, count in (("one", 1), ("two", 2), ("again", 1)):
        ownlm.prepare([str(folder)], output=tmp_path / name, workers=count, **SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "again")
    assert not multiprocessing.active_children()


KILLED = """
import importlib, os, signal, sys
from pathlib import Path
import ownlm
from ownlm.corpus.readers import tasks

source, output, where, left = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
tasks.BATCH_FILES = 6

def killed_later(before, counts=lambda *args: True):
    def call(*args, **more):
        global left
        left -= counts(*args)
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return before(*args, **more)
    return call

if where == "moving":
    Path.replace = killed_later(Path.replace, lambda file, to: Path(to).parent == Path(output))
else:
    module, name = where.split(":")
    module = importlib.import_module("ownlm.corpus." + module)
    setattr(module, name, killed_later(getattr(module, name)))
ownlm.prepare([source], output=output, vocab_size=400, workers=1)
"""
MOMENTS = [
    ("pipeline:stage", 2),
    ("staging:text_hash", 15),
    ("pipeline:decide", 0),
    ("pieces:encode_piece", 1),
    ("overlap:measure", 0),
    ("moving", 4),
]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is a Unix thing")
@pytest.mark.parametrize(("where", "after"), MOMENTS)
def test_a_kill_costs_nothing_but_time(tmp_path: Path, where: str, after: int) -> None:
    folder = folder_of(tmp_path / "texts", 24)
    ownlm.prepare([str(folder)], output=tmp_path / "whole", **SETTINGS)
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    command = [sys.executable, str(script), str(folder), str(tmp_path / "killed"), where, str(after)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(Refused, match="not finished"):
        Corpus.open(tmp_path / "killed")
    ownlm.prepare([str(folder)], output=tmp_path / "killed", **SETTINGS)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_is_staged_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "texts", 24)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "decide", interrupted)
        with pytest.raises(Interrupted, match="goes on where it stopped"):
            ownlm.prepare([str(folder)], output=tmp_path / "c", workers=1, **SETTINGS)
    changed = folder / "003.txt"
    changed.write_text(chinese(500), encoding="utf-8")
    read: list[object] = []
    before = staging.read_task

    def reading(task: ReadTask) -> Iterator[object]:
        for item in before(task):
            read.append(item)
            yield item

    monkeypatch.setattr(staging, "read_task", reading)
    corpus = ownlm.prepare([str(folder)], output=tmp_path / "c", workers=1, **SETTINGS)
    assert len(read) == 6  # only the task with the changed file
    assert corpus.manifest["steps"][0]["documents_out"] == 24


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is a Unix thing")
def test_workers_end_with_their_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, time\n"
        "from ownlm.corpus.workers import Workers\n"
        "with Workers(2) as workers:\n"
        "    pids = list(workers.map(os.getppid, []))\n"
        "    for pid in workers.map(eval, ['__import__(\"os\").getpid()'] * 4):\n"
        "        print(pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60
    )
    children = {int(pid) for pid in done.stdout.split()}
    assert children, done.stderr
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in children)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_script_without_a_main_guard_is_not_run_again_by_the_workers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "texts", 24)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport ownlm\nfrom ownlm.corpus.readers import tasks\n"
        "tasks.BATCH_FILES = 6\nprint('once')\n"
        "ownlm.prepare([sys.argv[1]], output=sys.argv[2], vocab_size=400, workers=2)\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(script), str(folder), str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n"


def test_every_step_accounts_for_every_document(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "texts", 30)
    (folder / "copy.txt").write_text(chinese(7), encoding="utf-8")
    (folder / "near.txt").write_text(english(8).replace("band", "bond", 1) + "more\n", encoding="utf-8")
    (folder / "blank.txt").write_text(" \n\n", encoding="utf-8")
    rows = [{"text": english(900)}, {"text": ""}, {"other": "x"}, {"text": chinese(901)}]
    table = "".join(json.dumps(row) + "\n" for row in rows) + "not json\n"
    (folder / "rows.jsonl").write_text(table, encoding="utf-8")
    corpus = ownlm.prepare([str(folder)], output=tmp_path / "c", **SETTINGS)
    steps = corpus.manifest["steps"]
    for before, after in itertools.pairwise(steps):
        assert before["documents_out"] == after["documents_in"]
    for step in steps:
        assert step["documents_in"] == step["documents_out"] + sum(step["dropped"].values()), step
    dropped = lines(tmp_path / "c" / "dropped.jsonl")
    assert len(dropped) == sum(sum(step["dropped"].values()) for step in steps)
    reasons = {str(line["where"]).rpartition("/")[2]: line for line in dropped}
    assert reasons["copy.txt:1"]["reason"] == "exact duplicate"
    assert reasons["copy.txt:1"]["kept"] == f"{folder.as_posix()}/007.txt:1"
    assert str(reasons["near.txt:1"]["reason"]).startswith("near duplicate, similarity 0.")
    assert reasons["near.txt:1"]["kept"] == f"{folder.as_posix()}/008.txt:1"
    assert {"blank.txt:1", "rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:5"} <= set(reasons)
    sources = lines(tmp_path / "c" / "sources.jsonl")
    assert sum(int(str(source["documents"])) for source in sources) == steps[0]["documents_out"]
    assert [source["id"] for source in sources] == list(range(len(sources)))


def test_the_tail_of_few_documents_is_validation(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "texts", 4)
    corpus = ownlm.prepare([str(folder)], output=tmp_path / "c", **SETTINGS)
    train, validation = corpus.split("train"), corpus.split("validation")
    assert (train.num_documents, validation.num_documents) == (4, 4)
    for number in range(4):
        whole = (folder / f"{number:03d}.txt").read_text(encoding="utf-8")
        head, tail = train.document_text(number), validation.document_text(number)
        assert head + tail == whole
        assert 0.05 < len(tail) / len(whole) < 0.2
        assert validation.where(number).endswith(f"{number:03d}.txt:{head.count(chr(10)) + 1}")
    assert "fewer than 20" in corpus.manifest["splits"]["validation"]["rule"]


def test_near_duplicates_that_are_kept_are_never_split(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(40):
        for copy in range(3):
            text = english(number).replace("\n", f" {copy}\n", 1)
            (folder / f"{number:02d}-{copy}.txt").write_text(text, encoding="utf-8")
    options = {"near_duplicates": "group", "validation": ["hash:0.3"], **SETTINGS}
    corpus = ownlm.prepare([str(folder)], output=tmp_path / "c", **options)
    sides: dict[str, set[str]] = {}
    for name in ("train", "validation"):
        split = corpus.split(name)
        for number in range(split.num_documents):
            sides.setdefault(split.where(number).rpartition("/")[2][:2], set()).add(name)
    assert corpus.split("train").num_documents + corpus.split("validation").num_documents == 120
    assert all(len(side) == 1 for side in sides.values())
    assert {side for names in sides.values() for side in names} == {"train", "validation"}


def test_a_folder_as_group_is_never_split(tmp_path: Path) -> None:
    for patient in range(30):
        folder_of(tmp_path / "texts" / f"patient{patient}", 2)
        for file in (tmp_path / "texts" / f"patient{patient}").iterdir():
            file.write_text(english(patient * 10 + int(file.stem)), encoding="utf-8")
    options = {"group_by": "folder", "validation": ["hash:0.3"], **SETTINGS}
    corpus = ownlm.prepare([str(tmp_path / "texts")], output=tmp_path / "c", **options)
    folders = []
    for name in ("train", "validation"):
        split = corpus.split(name)
        folders.append({split.where(number).split("/")[-2] for number in range(split.num_documents)})
    assert not folders[0] & folders[1]
    assert len(folders[0]) + len(folders[1]) == 30
    assert folders[1]


def test_validation_files_are_never_trained_on(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "texts", 24)
    held = folder / "held"
    held.mkdir()
    (held / "a.txt").write_text(chinese(800), encoding="utf-8")
    (held / "copy of 2.txt").write_text(english(2), encoding="utf-8")
    options = {"validation": [str(held)], **SETTINGS}
    corpus = ownlm.prepare([str(folder)], output=tmp_path / "c", **options)
    validation = corpus.split("validation")
    assert [validation.where(i).rpartition("/")[2] for i in range(2)] == ["a.txt:1", "copy of 2.txt:1"]
    assert corpus.split("train").num_documents == 23
    assert lines(tmp_path / "c" / "dropped.jsonl") == [
        {
            "where": f"{folder.as_posix()}/002.txt:1",
            "reason": "exact duplicate",
            "kept": f"{held.as_posix()}/copy of 2.txt:1",
        }
    ]


def test_duplicates_may_be_kept(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "texts", 24)
    for copy in range(5):
        (folder / f"copy{copy}.txt").write_text(chinese(1), encoding="utf-8")
    options = {"exact_duplicates": "keep", "near_duplicates": "drop", "validation": ["hash:0.2"], **SETTINGS}
    corpus = ownlm.prepare([str(folder)], output=tmp_path / "c", **options)
    counts = [corpus.split(name).num_documents for name in ("train", "validation")]
    assert sum(counts) == 29
    sides = set()
    for name in ("train", "validation"):
        split = corpus.split(name)
        sides |= {name for i in range(split.num_documents) if split.document_text(i) == chinese(1)}
    assert len(sides) == 1


def test_without_the_minhash_library_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownlm.corpus.settings.minhash_available", lambda: False)
    folder = folder_of(tmp_path / "texts", 24)
    (folder / "near.txt").write_text(english(8) + "more\n", encoding="utf-8")
    corpus = ownlm.prepare([str(folder)], output=tmp_path / "c", workers=1, **SETTINGS)
    step = next(step for step in corpus.manifest["steps"] if step["step"] == "near duplicates")
    assert step["documents_out"] == 25
    assert "pip install 'ownlm[data]'" in step["note"]
