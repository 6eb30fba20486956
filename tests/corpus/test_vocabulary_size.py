"""How large a vocabulary is when nobody says so."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.corpus.vocabulary_size import COVERED, LARGEST, MIN_COUNT, SMALLEST, WIDE, choose_vocab_size

SIZES = st.integers(1, 10**13)


@given(SIZES)
def test_a_power_of_two_near_the_square_root_within_the_bounds(corpus_bytes: int) -> None:
    size, _ = choose_vocab_size(corpus_bytes)
    assert SMALLEST <= size <= LARGEST
    assert size & (size - 1) == 0
    if SMALLEST < size < LARGEST:
        assert abs(math.log2(size) - math.log2(corpus_bytes) / 2) <= 0.5


@given(SIZES, SIZES)
def test_more_text_never_gets_a_smaller_vocabulary(one: int, other: int) -> None:
    small, large = sorted([one, other])
    assert choose_vocab_size(small)[0] <= choose_vocab_size(large)[0]


@pytest.mark.parametrize(
    ("corpus_bytes", "size"),
    [(10**6, 1024), (10**7, 4096), (10**8, 8192), (6 * 10**8, LARGEST), (10**10, LARGEST)],
)
def test_the_sizes_that_the_rule_names(corpus_bytes: int, size: int) -> None:
    assert choose_vocab_size(corpus_bytes)[0] == size


def test_no_text_at_all_gets_the_smallest() -> None:
    assert choose_vocab_size(0)[0] == SMALLEST


@given(st.integers(1, 25_000), SIZES)
def test_common_characters_get_a_token_each_and_leave_room_for_merges(
    characters: int, corpus_bytes: int
) -> None:
    counts = Counter({chr(0x4E00 + number): 1000 for number in range(characters)})
    size, why = choose_vocab_size(corpus_bytes, counts)
    common = math.ceil(COVERED * characters)
    assert size >= choose_vocab_size(corpus_bytes)[0]
    if size < LARGEST:
        assert 3 * (size - 272) >= 5 * common - 5  # two fifths of the room for merges, up to rounding
    if size > choose_vocab_size(corpus_bytes)[0]:
        assert f"{common:,} characters" in why


def test_rare_characters_do_not_make_the_vocabulary_larger() -> None:
    frequent = Counter({chr(0x4E00 + number): 10_000 for number in range(500)})
    rare = Counter({chr(0x6000 + number): MIN_COUNT - 1 for number in range(5000)})
    assert choose_vocab_size(10**6, frequent + rare)[0] == choose_vocab_size(10**6, frequent)[0]
    assert choose_vocab_size(10**6, rare)[0] == choose_vocab_size(10**6)[0]


@pytest.mark.parametrize(
    ("text", "wide"), [("春眠", 2), ("カナ", 2), ("한글", 2), ("𠀀", 1), ("aé, я。 ", 0), ("\u3400\u4dbf", 2)]
)
def test_scripts_whose_characters_are_words(text: str, wide: int) -> None:
    assert len(WIDE.findall(text)) == wide
