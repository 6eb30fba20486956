"""Work in order, in this process and in others; reading ahead in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ownlm.corpus.workers import ahead


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
