"""Work in order, in this process and in others; reading ahead in a thread."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from ownlm.corpus.shards import Corpus
from ownlm.corpus.workers import ahead, start_method


def test_reading_ahead_gives_the_same_items_in_order() -> None:
    assert list(ahead(range(50))) == list(range(50))
    assert list(ahead([])) == []
    assert list(ahead([None, None])) == [None, None]


def test_the_next_item_is_made_in_another_thread_while_this_one_is_worked_on() -> None:
    made = [threading.Event() for _ in range(4)]
    threads = set()

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            threads.add(threading.get_ident())
            event.set()
            yield number

    coming = ahead(items())
    assert next(coming) == 0
    assert made[1].wait(10)  # nobody asked for it yet
    assert not made[3].is_set()  # one item ahead, no more
    assert list(coming) == [1, 2, 3]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_while_reading_ahead_arrives_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="broken"):
        next(coming)


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    coming = ahead(range(1000))
    next(coming)
    coming.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_processes_are_copies_only_where_no_other_thread_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert start_method() == ("fork" if sys.platform == "linux" else "spawn")
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert start_method() == "spawn"
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert start_method() == "spawn"


def test_copies_and_new_processes_make_the_same_corpus(text_folder: Path, tmp_path: Path) -> None:
    """Typed in a shell the workers are copies; started beside torch they are new processes."""
    import torch  # noqa: F401 - what makes the difference

    import ownlm

    here = ownlm.prepare([str(text_folder)], output=tmp_path / "here", vocab_size=400, workers=2)
    command = [sys.executable, "-m", "ownlm", "prepare", str(text_folder), "-o", str(tmp_path / "shell")]
    subprocess.run([*command, "--vocab-size", "400", "--workers", "2", "-q"], check=True)
    assert Corpus.open(tmp_path / "shell").hash == here.hash
