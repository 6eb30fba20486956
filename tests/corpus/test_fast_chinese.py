"""The array way gives the ids of `tokenizers`, whatever stands in the text and whatever it has forgotten."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ownlm.corpus import fast_chinese
from ownlm.corpus.fast_bpe import SEPARATOR, FastBpe
from ownlm.corpus.fast_chinese import FastChinese
from ownlm.corpus.straddled import straddled
from tests.corpus.vocabularies import (
    PHRASES,
    Reference,
    chinese_text,
    hard_texts,
    opened,
    plain_texts,
    trained,
)

TOKENIZER = trained()
REFERENCE = Reference(TOKENIZER.text)
DATA = Path(__file__).parents[2].parent / "shared" / "data"


def fresh(tokenizer=TOKENIZER) -> FastChinese:  # type: ignore[no-untyped-def]
    fast = tokenizer.fast_path
    assert isinstance(fast, FastBpe)
    return FastChinese(fast.encoding, fast._tokens or [], SEPARATOR)


SHARED = fresh()
SEPARATOR_ID = SHARED.encoding.max_token_value


def expected(text: str, reference: Reference = REFERENCE) -> list[int]:
    return reference.joined(text.split(SEPARATOR), SEPARATOR_ID)[1:]


@given(plain_texts([SEPARATOR], length=60))
@settings(max_examples=300, deadline=None)
def test_ids_of_plain_text_are_those_of_tokenizers(text: str) -> None:
    assert SHARED.encode(text).tolist() == expected(text)


@given(hard_texts([SEPARATOR]))
@example("春 晓")
@example("春  晓  1   。\n")
@example("。。\n\n春\r\n 晓'S'st")
@example("！春 ！春  ！春\n！\n春")
@example("1 2  3   ４ 〇A")
@settings(max_examples=250, deadline=None)
def test_ids_are_those_of_tokenizers(text: str) -> None:
    assert SHARED.encode(text).tolist() == expected(text)


@given(st.lists(st.one_of(plain_texts([SEPARATOR], 12), hard_texts([SEPARATOR], 6)), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_ids_do_not_depend_on_what_was_remembered_or_forgotten(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_chinese, "_MAX_UNITS", 6)  # forgets at almost every text
        patch.setattr(fast_chinese, "_CHAIN_BITS", 1)  # and almost all chains share a place
        patch.setattr(fast_chinese, "_CHAIN_PLACES", 2)
        fast = fresh()
        for text in texts * 2:
            assert fast.encode(text).tolist() == expected(text)


def test_an_overflowing_memory_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_chinese, "_MAX_UNITS", 10)
    fast = fresh()
    sizes = []
    for seed in range(6):
        text = chinese_text(seed, 40)
        assert fast.encode(text).tolist() == expected(text)
        sizes.append(len(fast._start))
    assert sizes[0] > 10
    assert max(sizes) < 3 * sizes[0]  # without forgetting they would only grow
    assert sorted(sizes) != sizes


def test_new_characters_and_chains_are_learnt_in_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = fresh()
    calls: list[str] = []
    before = fast._by_tiktoken
    monkeypatch.setattr(fast, "_by_tiktoken", lambda text: calls.append(text) or before(text))
    text = "".join(chr(point) for point in range(0x4E00, 0x5E00)) + "".join(PHRASES)
    first = fast.encode(text)
    assert first.tolist() == expected(text)
    assert 1 <= len(calls) <= 3  # characters, short chains, long chains
    calls.clear()
    assert fast.encode(text + text).tolist() == expected(text + text)
    assert sum(map(len, calls)) < 10  # only what stands across the new border


def test_lines_of_other_scripts_go_to_tiktoken_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = fresh()
    lines = ["春眠不觉晓。\n", "看カタカナ。\n", "花落知多少。\n", "春🙂\n", "人间。\n"]
    fast.encode("".join(lines))
    given_away: list[str] = []
    before = fast._by_tiktoken
    monkeypatch.setattr(fast, "_by_tiktoken", lambda text: given_away.append(text) or before(text))
    assert fast.encode("".join(lines)).tolist() == expected("".join(lines))
    assert given_away == [lines[1], lines[3]]


def test_merges_over_punctuation_and_digits_of_a_foreign_order() -> None:
    """Nothing but the merges says where characters join: a vocabulary of pairs only, and one of none."""
    spec = dict(TOKENIZER.spec)
    alone = {**spec, "model": {**spec["model"], "merges": []}}
    alone["model"]["vocab"] = {t: i for t, i in spec["model"]["vocab"].items() if i < 16 + 256}
    tokenizer = opened(alone)
    reference = Reference(tokenizer.text)
    fast = fresh(tokenizer)
    text = chinese_text(5) + "。\n" + SEPARATOR + "春A1"
    separator = fast.encoding.max_token_value
    assert fast.encode(text).tolist() == reference.joined(text.split(SEPARATOR), separator)[1:]


@pytest.mark.parametrize(
    "text", ["", "春", SEPARATOR, SEPARATOR * 3, " ", "\n", "'", "🙂", "a" * 5000, "春" * 5000]
)
def test_short_and_repeated_texts(text: str) -> None:
    assert fresh().encode(text).tolist() == expected(text)


def test_suits_text_that_is_mostly_han() -> None:
    assert FastChinese.suits("春眠不觉晓，处处闻啼鸟。")
    assert FastChinese.suits("春眠不觉晓" * 10_000 + "a" * 40_000)
    assert not FastChinese.suits("春眠不觉晓" + "a" * 40)
    assert not FastChinese.suits("こんにちは")
    assert not FastChinese.suits("plain")


def brute_force(tokens: list[bytes], one: str, other: str) -> bool:
    """Whether a token can lie across the border of two characters, byte by byte."""
    a, b = one.encode(), other.encode()
    for token in tokens:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if (left.endswith(a) or a.endswith(left)) and (right.startswith(b) or b.startswith(right)):
                return True
    return False


ALPHABET = "Az1.é\u07ff\u0800春晓。\uffff\U00010000🙂\U0010ffff"
WHOLE = st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=4).map(lambda found: "".join(found).encode())
PARTS = st.tuples(WHOLE, st.integers(0, 3), st.integers(0, 3)).map(lambda t: t[0][t[1] : len(t[0]) - t[2]])


@given(st.lists(st.one_of(WHOLE, PARTS, st.binary(max_size=3)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_straddled_borders_are_those_that_some_token_lies_across(tokens: list[bytes]) -> None:
    points = sorted(map(ord, ALPHABET))
    left, right, table = straddled(tokens, points)
    for one in ALPHABET:
        for other in ALPHABET:
            found = bool(table[left[ord(one)], right[ord(other)]])
            # A border that is called straddled and is none costs time, the opposite would cost the ids.
            assert found or not brute_force(tokens, one, other)


def test_straddled_borders_of_a_trained_vocabulary_are_few() -> None:
    left, right, table = straddled(
        [token for token in TOKENIZER._bytes if token], list(range(0x4E00, 0x9FA6))
    )
    assert table[left[ord("春")], right[ord("眠")]]  # a phrase of the training text
    assert not table[left[ord("鸟")], right[ord("眠")]]
    share = table[np.ix_(left[0x4E00:0x5200], right[0x4E00:0x5200])].mean()
    assert share < 0.5


def test_poems(tmp_path: Path) -> None:
    source = DATA / "chinese_poetry" / "valid.jsonl.xz"
    if not source.exists():
        pytest.skip("the poems of ../shared are not on this machine")
    import json

    with lzma.open(source, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(1500), file)]
    text = SEPARATOR + SEPARATOR.join(texts)
    assert FastChinese.suits(text)
    assert fresh().encode(text).tolist() == REFERENCE.joined(texts, SEPARATOR_ID)
