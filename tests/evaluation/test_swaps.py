"""One word swapped: pairs that only a model of the language tells apart, and the counter beside it."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest

from ownlm.corpus.tokenizer import Tokenizer
from ownlm.evaluation.metrics import share
from ownlm.evaluation.scoring import score_tokens
from ownlm.evaluation.swaps import WORD, NgramCounter, Pair, prefer_true, swap_pairs, word_counts
from ownlm.model.transformer import Transformer
from tests.engine.conftest import random_model

from .conftest import CONTEXT

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES][:800]


def language(lines: int, seed: int) -> str:
    """Lines in which each word stands before one of three others; words are common as 1 / rank."""
    generator = np.random.default_rng(seed)
    chances = 1 / np.arange(1, len(WORDS) + 1)
    chances /= chances.sum()
    found = []
    for _ in range(lines):
        at = int(generator.choice(len(WORDS), p=chances))
        line = []
        for _ in range(int(generator.integers(4, 9))):
            line.append(WORDS[at])
            follow = np.random.default_rng(at).choice(len(WORDS), size=3, p=chances)
            at = int(follow[generator.integers(3)])
        found.append(" ".join(line) + ".")
    return "\n".join(found)


TRAIN = language(3000, 1)
HELD_OUT = language(1200, 2)
VOCABULARY = word_counts([TRAIN])


@pytest.fixture(scope="module")
def pairs(tokenizer: Tokenizer) -> list[Pair]:
    return swap_pairs([HELD_OUT], VOCABULARY, tokenizer, 400, seed=1)


def test_one_word_differs(pairs: list[Pair]) -> None:
    lines = set(HELD_OUT.splitlines())
    assert len(pairs) == len({pair.true for pair in pairs}) == 400
    for true, swapped in pairs:
        assert true in lines
        different = [(a, b) for a, b in zip(true.split(" "), swapped.split(" "), strict=True) if a != b]
        assert len(different) == 1
        assert {word.strip(".") for word in different[0]} <= set(VOCABULARY)


def test_the_words_are_of_comparable_rank_and_neither_is_the_more_common_one(pairs: list[Pair]) -> None:
    rank = {word: place for place, (word, _) in enumerate(VOCABULARY.most_common(), 1)}
    ratios = []
    for true, swapped in pairs:
        ((one, other),) = [(a, b) for a, b in zip(WORD.findall(true), WORD.findall(swapped)) if a != b]
        ratios.append(rank[other] / rank[one])
    assert min(ratios) >= 0.5
    assert max(ratios) <= 2
    assert abs(np.log(ratios).mean()) < 0.1


def test_knowing_how_common_each_word_is_does_not_win(tokenizer: Tokenizer) -> None:
    pairs = swap_pairs([HELD_OUT], VOCABULARY, tokenizer, 5000, seed=1)
    found = NgramCounter([TRAIN], order=1).prefer_true(pairs)
    assert 0.42 < found["value"] < 0.58


def test_both_lines_are_equally_long_in_tokens(pairs: list[Pair], tokenizer: Tokenizer) -> None:
    assert all(len(tokenizer.encode(true)) == len(tokenizer.encode(swapped)) for true, swapped in pairs)


def test_pairs_depend_on_the_seed_alone(tokenizer: Tokenizer, pairs: list[Pair]) -> None:
    assert swap_pairs([HELD_OUT], VOCABULARY, tokenizer, 400, seed=1) == pairs
    backwards = HELD_OUT.splitlines()[::-1]
    assert swap_pairs(backwards, VOCABULARY, tokenizer, 400, seed=1) == pairs
    assert swap_pairs([HELD_OUT], VOCABULARY, tokenizer, 400, seed=2) != pairs


def test_lines_that_are_too_short_too_long_or_unknown_are_not_used(tokenizer: Tokenizer) -> None:
    lines = ["baba de", " ".join(["baba"] * 60), "unseen words alone", "12 34 56 78"]
    assert swap_pairs(lines, VOCABULARY, tokenizer) == []
    assert swap_pairs([HELD_OUT], Counter({"baba": 5}), tokenizer) == []


def test_words_of_han_are_two_characters(tokenizer: Tokenizer) -> None:
    texts = ["春眠不觉晓，处处闻啼鸟。", "夜来风雨声，花落知多少。", "床前明月光，疑是地上霜。"]
    assert list(word_counts(texts[:1])) == ["春眠", "不觉", "处处", "闻啼"]
    numerals = "一二三四五六七八九十"
    lines = [f"{a}{b}山上有人家，{b}{a}水边无鸟声" for a in numerals for b in numerals]
    pairs = swap_pairs(lines, word_counts(lines), tokenizer, 50)
    assert len(pairs) >= 20
    for true, swapped in pairs:
        assert len(true) == len(swapped)
        assert 1 <= sum(a != b for a, b in zip(true, swapped)) <= 2


def test_a_fresh_model_is_at_chance(pairs: list[Pair], tokenizer: Tokenizer) -> None:
    fresh = Transformer(random_model(CONTEXT, tokenizer.vocab_size).config)
    fresh.init_weights(3)
    found = prefer_true(fresh.eval(), tokenizer, pairs, CONTEXT)
    assert found["low"] <= 0.5 <= found["high"]


def test_the_line_with_the_higher_log_probability_is_preferred(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    pairs = [
        Pair("the fox runs", "the sea runs"),
        Pair("a river falls", "a river sleeps"),
        Pair("fox", "sea"),
    ]

    def total(text: str) -> float:
        ids = np.concatenate([[tokenizer.start_id], tokenizer.encode(text)])
        return float(score_tokens(model, [ids], context=CONTEXT)[0].logprobs.sum())

    wins = sum(total(true) > total(swapped) for true, swapped in pairs)
    assert prefer_true(model, tokenizer, pairs, CONTEXT) == share(wins, 3)
    turned = [Pair(swapped, true) for true, swapped in pairs]
    assert prefer_true(model, tokenizer, turned, CONTEXT) == share(3 - wins, 3)


def test_the_counter_beats_chance(pairs: list[Pair]) -> None:
    assert NgramCounter([TRAIN]).prefer_true(pairs)["low"] > 0.8


def pieces(line: str) -> list[str]:
    """Words, single Han characters, signs, runs of spaces; a line starts with its line end."""
    return ["\n", *re.findall(r"[\u4e00-\u9fff]|(?:(?![\u4e00-\u9fff])\w)+|[^\w\s]|\s+", line.strip())]


def slow_score(texts: list[str], line: str, order: int) -> float:
    """Stupid backoff (Brants et al. 2007, equation 5) by counting in lists."""
    lines = [pieces(x) for text in texts for x in text.splitlines()]

    def count(run: list[str]) -> int:
        return sum(x[i : i + len(run)] == run for x in lines for i in range(len(x) - len(run) + 1))

    def score(run: list[str]) -> float:
        if len(run) == 1:
            return (count(run) + 0.5) / (sum(map(len, lines)) + 1)
        return count(run) / count(run[:-1]) if count(run) else 0.4 * score(run[1:])

    of = pieces(line)
    return sum(math.log(score(of[max(0, i - order + 1) : i + 1])) for i in range(1, len(of)))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_counter_is_stupid_backoff_over_pieces_of_lines(order: int) -> None:
    texts = ["the fox runs home.\n  the fox sleeps, 处处闻啼鸟\n", "a_1 = the(fox)\n\nthe fox runs on"]
    counter = NgramCounter(texts, order=order)
    for line in (
        "the fox runs home.",
        "  fox runs  the",
        "处闻处",
        "a_1 = unseen(fox)",
        "the",
        "",
        "the fox runs on",
    ):
        assert counter.score(line) == pytest.approx(slow_score(texts, line, order))


def test_a_tie_counts_half() -> None:
    assert NgramCounter(["fox"]).prefer_true([Pair("abc", "def"), Pair("fox", "abc")]) == share(1.5, 2)
