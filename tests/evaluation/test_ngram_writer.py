"""The writing counter draws what followed, as often as it followed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.evaluation.ngram_writer import NgramWriter


@given(st.lists(st.integers(0, 3), min_size=4, max_size=80), st.lists(st.integers(0, 4), max_size=6))
@settings(max_examples=200, deadline=None)
def test_the_longest_context_that_was_seen_decides(ids: list[int], context: list[int]) -> None:
    expected: list[int] = []
    for size in (3, 2, 1, 0):
        if size <= len(context):
            end = context[len(context) - size :]
            expected = [ids[i] for i in range(3, len(ids)) if ids[i - size : i] == end]
        if expected:
            break
    assert Counter(NgramWriter(np.array(ids)).following(context).tolist()) == Counter(expected)


def test_tokens_are_drawn_as_often_as_they_followed() -> None:
    writer = NgramWriter(np.array([1, 2, 3, 4] * 30 + [1, 2, 3, 5] * 10 + [9, 9, 9]))
    generator = np.random.default_rng(0)
    drawn = Counter(writer.write([1, 2, 3], 1, 99, generator)[0] for _ in range(2000))
    assert drawn[4] / 2000 == pytest.approx(
        30 / 41, abs=0.04
    )  # [1, 2, 3] is followed by 4, 5 and, once, by 9
    cold = Counter(writer.write([1, 2, 3], 1, 99, generator, temperature=0.2)[0] for _ in range(500))
    assert cold[4] / 500 == pytest.approx(30**5 / (30**5 + 10**5 + 1), abs=0.02)


def test_it_ends_at_the_stop_token_or_the_length() -> None:
    writer = NgramWriter(np.array([1, 2, 3, 4, 0] * 5))
    generator = np.random.default_rng(0)
    assert writer.write([1, 2], 10, 0, generator) == [3, 4, 0]
    assert writer.write([1, 2], 2, 0, generator) == [3, 4]


def test_large_ids_are_told_apart() -> None:
    top = 2**21 - 1
    ids = np.array([top, top, top, 7, 0, top, top, 8, top, 0, top, 9], np.uint32)
    writer = NgramWriter(ids)
    assert writer.following([top, top, top]).tolist() == [7]
    assert writer.following([0, top, top]).tolist() == [8]
    assert writer.following([top, 0, top]).tolist() == [9]


def test_too_short_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens; at least 4 are needed"):
        NgramWriter(np.arange(3))
