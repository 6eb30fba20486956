"""Overlap: a hashed 13-gram is found exactly where the same 13 tokens stand."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ownlm.corpus import overlap
from ownlm.corpus.overlap import NGRAM, gram_hashes, measure
from ownlm.corpus.shards import INDEX_DTYPE, Corpus, ShardWriter
from ownlm.corpus.workers import Workers

EOS = 0


class FakeTokenizer:
    eos_id = EOS


def corpus_of(folder: Path, train: list[list[int]], validation: list[list[int]]) -> Corpus:
    folder.mkdir()
    splits = {}
    for name, documents in (("train", train), ("validation", validation)):
        writer = ShardWriter(folder, name, np.dtype("<u2"), shard_bytes=2000)
        for ids in documents:
            row = np.zeros(1, INDEX_DTYPE)
            row["tokens"] = len(ids) + 1
            writer.append(np.array([EOS, *ids]), row)
        tokens = sum(len(ids) + 1 for ids in documents)
        splits[name] = {"documents": len(documents), "bytes": 0, "tokens": tokens, "shards": writer.close()}
    corpus = Corpus(folder, {"dtype": "uint16", "splits": splits})
    corpus.tokenizer = FakeTokenizer()  # type: ignore[assignment]
    return corpus


def expected(train: list[list[int]], validation: list[list[int]]) -> tuple[int, int, int]:
    def grams(ids: list[int]) -> list[tuple[int, ...]]:
        return [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]

    seen = {gram for ids in train for gram in grams(ids)}
    hits = [[gram in seen for gram in grams(ids)] for ids in validation]
    whole = sum(bool(h) and all(h) for h in hits)
    return sum(map(sum, hits)), sum(map(len, hits)), whole


def test_the_share_is_that_of_a_plain_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(3)
    train = [[source.randrange(1, 500) for _ in range(source.randrange(5, 200))] for _ in range(60)]
    validation = [[source.randrange(1, 500) for _ in range(100)] for _ in range(30)]
    for number in range(0, 30, 3):  # a stretch of training text in every third validation document
        piece = train[number][:60]
        validation[number][20 : 20 + len(piece)] = piece
    validation[4] = train[7] if len(train[7]) >= NGRAM else train[8]
    hits, grams, whole = expected(train, validation)
    assert whole >= 1
    monkeypatch.setattr(overlap, "BLOCK", 97)  # grams across blocks, tasks and shards are not lost
    monkeypatch.setattr(overlap, "TASK", 501)
    found = measure(corpus_of(tmp_path / "c", train, validation), tmp_path, Workers(1), lambda amount: None)
    assert found is not None
    assert found["share"]["n"] == grams
    assert found["share"]["value"] == hits / grams
    assert found["share"]["low"] < hits / grams < found["share"]["high"]
    assert found["whole_documents"] == whole


def test_a_sample_by_hash_estimates_the_same_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(4)
    train = [[source.randrange(1, 60_000) for _ in range(3000)] for _ in range(4)]
    validation = [train[i][:1500] + [source.randrange(1, 60_000) for _ in range(1500)] for i in range(4)]
    monkeypatch.setattr(overlap, "MOST", 4000)
    found = measure(corpus_of(tmp_path / "c", train, validation), tmp_path, Workers(1), lambda amount: None)
    assert found is not None
    assert found["sampled"] == 0.25
    assert abs(found["share"]["value"] - 0.5) < 0.06


def test_no_validation_text_has_no_overlap(tmp_path: Path) -> None:
    assert (
        measure(corpus_of(tmp_path / "c", [[1] * 50], []), tmp_path, Workers(1), lambda amount: None) is None
    )


def test_every_token_and_its_place_count() -> None:
    ids = np.arange(1, NGRAM + 1)
    base = gram_hashes(ids)[0]
    hashes = {int(base)}
    for position in range(NGRAM):
        changed = ids.copy()
        changed[position] = 99
        hashes.add(int(gram_hashes(changed)[0]))
    hashes.add(int(gram_hashes(ids[::-1].copy())[0]))
    assert len(hashes) == NGRAM + 2
