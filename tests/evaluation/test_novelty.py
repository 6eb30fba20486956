"""Copied runs are found wherever they stand in the training text, others are not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.corpus.shards import Corpus
from ownlm.evaluation.novelty import RUN_TOKENS, run_hashes, token_chunks, unseen_share


def slow_share(texts: list[list[int]], training: list[int], run: int) -> float:
    seen = {tuple(training[i : i + run]) for i in range(len(training) - run + 1)}
    runs = [tuple(text[i : i + run]) for text in texts for i in range(len(text) - run + 1)]
    return sum(one not in seen for one in runs) / len(runs)


@given(st.data(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_it_is_the_share_of_runs_that_are_not_in_the_training_text(data: st.DataObject, run: int) -> None:
    tokens = st.integers(0, 3)
    texts = data.draw(st.lists(st.lists(tokens, max_size=20), min_size=1, max_size=4))
    texts.append([0] * run)  # one at least is long enough
    training = data.draw(st.lists(tokens, max_size=60))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(training)), max_size=6)))
    chunks = [np.array(training[a:b]) for a, b in zip([0, *cuts], [*cuts, len(training)])]
    found = unseen_share(texts, chunks, run=run)
    assert found["value"] == pytest.approx(slow_share(texts, training, run))
    assert found["low"] <= found["value"] <= found["high"]
    assert found["n"] == len(texts)


def test_a_planted_copy_is_found_over_the_border_of_chunks() -> None:
    generator = np.random.default_rng(0)
    training = generator.integers(0, 50_000, 1500)
    copied, new = training[995:1015], generator.integers(0, 50_000, 20)
    for size in (1000, 999, 3, 1):  # a border inside the copy, chunks shorter than a run
        chunks = [training[at : at + size] for at in range(0, len(training), size)]
        assert unseen_share([copied], chunks)["value"] == 0
        assert unseen_share([new], chunks)["value"] == 1
        half = np.concatenate([copied, new])
        runs = len(half) - RUN_TOKENS + 1
        assert unseen_share([half], chunks)["value"] == (runs - (20 - RUN_TOKENS + 1)) / runs


def test_one_token_changed_makes_a_run_new() -> None:
    training = np.arange(100, 200)
    for place in range(RUN_TOKENS):
        text = training[20 : 20 + RUN_TOKENS].copy()
        assert unseen_share([text], [training])["value"] == 0
        text[place] += 1000
        assert unseen_share([text], [training])["value"] == 1
    assert unseen_share([training[20 : 20 + RUN_TOKENS][::-1]], [training])["value"] == 1  # the order counts


def test_hashes_of_different_runs_differ() -> None:
    ids = np.random.default_rng(1).integers(0, 300, 200_000)
    runs = np.lib.stride_tricks.sliding_window_view(ids, RUN_TOKENS)
    assert len(np.unique(run_hashes(ids, RUN_TOKENS))) == len(np.unique(runs, axis=0))


def test_memory_does_not_grow_with_the_training_text() -> None:
    def chunks(count: int) -> Iterator[np.ndarray]:
        generator = np.random.default_rng(2)
        for _ in range(count):
            yield generator.integers(0, 1000, 20_000)

    peaks = []
    for count in (2, 30):
        tracemalloc.start()
        unseen_share([np.arange(100)], chunks(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_texts_shorter_than_a_run_count_nothing() -> None:
    training = [np.arange(100)]
    alone = unseen_share([np.arange(5, 25)], training)
    assert unseen_share([np.arange(5, 25), np.arange(900, 903)], training)["value"] == alone["value"] == 0
    with pytest.raises(ValueError, match=f"no text has {RUN_TOKENS} tokens"):
        unseen_share([np.arange(3)], training)


def test_the_chunks_of_a_split_are_its_tokens(corpus: Path) -> None:
    split = Corpus.open(corpus).split("train")
    chunks = list(token_chunks(split, 1000))
    assert len(chunks) == -(-split.num_tokens // 1000) > 1
    np.testing.assert_array_equal(np.concatenate(chunks), split.read(0, split.num_tokens))
    assert unseen_share([split.document(0)], token_chunks(split, 777))["value"] == 0
