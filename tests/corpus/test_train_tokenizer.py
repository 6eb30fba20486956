"""Training a vocabulary: the same every time, on no more text than it needs, with nothing it cannot spell."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus import train_tokenizer as module
from ownlm.corpus.tokenizer import SPECIAL_TOKENS
from ownlm.corpus.train_tokenizer import MIN_COUNT, RESERVED, Kind, check_vocab_size, pieces, train_tokenizer
from ownlm.corpus.vocabulary_size import choose_vocab_size
from tests.corpus.vocabularies import chinese_text, hard_texts, trained, training_text

KINDS: list[Kind] = ["bpe", "char", "word"]
TEXT = training_text(1, 2000)


def train(texts: list[str], kind: Kind = "bpe", vocab_size: int | None = 400, corpus_bytes: int = 10_000):  # type: ignore[no-untyped-def]
    return train_tokenizer(texts, vocab_size=vocab_size, kind=kind, corpus_bytes=corpus_bytes)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic(kind: Kind) -> None:
    assert train([TEXT], kind).text == train([TEXT], kind).text
    assert train([TEXT], kind).text != train([chinese_text()], kind).text


def test_training_does_not_depend_on_the_hash_seed_of_python() -> None:
    script = (
        "import hashlib; from tests.corpus.vocabularies import trained; "
        "print(*(hashlib.sha256(trained(k).text.encode()).hexdigest() for k in ('bpe', 'char', 'word')))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_has_the_size_asked_for_with_the_reserved_ids_in_front(kind: Kind) -> None:
    tokenizer = train([TEXT], kind, 290)
    assert tokenizer.vocab_size == 290
    assert [tokenizer.backend.id_to_token(index) for index in range(len(SPECIAL_TOKENS))] == list(
        SPECIAL_TOKENS
    )
    assert tokenizer.training is not None
    assert "290 was asked for" in tokenizer.training.why


def test_a_vocabulary_of_the_bytes_alone_has_one_id_a_byte() -> None:
    for kind in KINDS:
        tokenizer = train([TEXT], kind, RESERVED)
        assert len(tokenizer.encode("春 a🙂")) == len("春 a🙂".encode())


@pytest.mark.parametrize("size", [0, 1, RESERVED - 1])
def test_a_vocabulary_too_small_for_the_bytes_is_a_wrong_argument(size: int) -> None:
    with pytest.raises(UsageError, match=f"a vocabulary of {size} is too small"):
        train([TEXT], vocab_size=size)
    check_vocab_size(RESERVED)
    check_vocab_size(None)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(Refused, match="no text to train a tokenizer on"):
        train(texts)


def test_the_size_follows_from_the_corpus_and_not_from_the_sample() -> None:
    source = random.Random(0)
    text = " ".join("".join(source.choices("abcdefghij", k=6)) for _ in range(2000))
    for corpus_bytes in (10_000, 4_000_000):
        tokenizer = train([text], vocab_size=None, corpus_bytes=corpus_bytes)
        assert tokenizer.vocab_size <= choose_vocab_size(corpus_bytes)[0]
        assert tokenizer.training is not None
        assert tokenizer.training.why == choose_vocab_size(corpus_bytes)[1]
    assert train([text], vocab_size=None, corpus_bytes=4_000_000).vocab_size > 512


# ---- the sample


@given(st.lists(hard_texts(length=10), max_size=5), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_pieces_are_the_texts_in_order(texts: list[str], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_CHARACTERS", size)
        found = list(pieces(texts))
    assert "".join(found) == "".join(texts)
    assert all(0 < len(piece) <= size for piece in found)


def test_pieces_end_after_a_line_end_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_CHARACTERS", 10)
    assert list(pieces(["abc\ndef\nghijkl", "x" * 12])) == ["abc\ndef\n", "ghijkl", "x" * 10, "xx"]


def test_the_sample_stops_at_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_BYTES", 1000)
    taken: list[str] = []

    def texts():  # type: ignore[no-untyped-def]
        while True:
            taken.append("same words again ")
            yield taken[-1]

    tokenizer = train_tokenizer(texts(), vocab_size=300, corpus_bytes=10**9)
    assert tokenizer.training is not None
    assert 1000 <= tokenizer.training.sample_bytes <= 1000 + len(taken[0])
    assert tokenizer.training.sample_bytes == sum(map(len, taken))


def test_the_sample_stops_when_its_distinct_words_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISTINCT_WORD_BYTES", 500)
    source = random.Random(0)
    different = ["".join(source.choices("abcdefghij", k=10)) for _ in range(200)]
    assert len(list(pieces(different))) == 50
    assert len(list(pieces(["repeated "] * 200))) == 200


def test_broken_surrogates_do_not_reach_the_trainer() -> None:
    tokenizer = train([TEXT + "\ud800" * 10], "char")
    assert "\ufffd" in tokenizer.backend.get_vocab()


# ---- characters and words


@pytest.mark.parametrize("kind", ["char", "word"])
def test_characters_and_words_have_no_unknown_token_and_lose_nothing(kind: Kind) -> None:
    tokenizer = trained(kind)
    assert tokenizer.spec["model"].get("unk_token") is None
    assert tokenizer.spec["model"]["byte_fallback"] is True

    @given(st.text(st.characters(codec="utf-8"), max_size=30))
    @settings(max_examples=80, deadline=None)
    def check(text: str) -> None:
        assert tokenizer.backend.decode(tokenizer.encode(text).tolist()) == text
        assert tokenizer.decode(tokenizer.encode(text)) == text

    check()


def test_characters_seen_too_rarely_are_bytes() -> None:
    tokenizer = train(["春" * MIN_COUNT + "眠" * (MIN_COUNT - 1)], "char", None)
    assert tokenizer.vocab_size == RESERVED + 1
    assert len(tokenizer.encode("春")) == 1
    assert len(tokenizer.encode("眠")) == len("眠".encode())


def test_the_most_frequent_characters_come_first() -> None:
    counts = Counter(TEXT)
    ranked = sorted((c for c, n in counts.items() if n >= MIN_COUNT), key=lambda c: (-counts[c], c))
    tokenizer = train([TEXT], "char", RESERVED + 5)
    assert [tokenizer.backend.id_to_token(RESERVED + number) for number in range(5)] == ranked[:5]


def test_whole_words_are_one_id_and_others_their_characters() -> None:
    tokenizer = trained("word")
    assert len(tokenizer.encode("处处闻啼鸟")) == 1  # a phrase that stands between punctuation
    unknown = "处闻处啼处鸟"
    assert len(tokenizer.encode(unknown)) == len(unknown)
