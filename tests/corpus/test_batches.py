"""Batches: every block once an epoch, a function of (seed, step) alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.console.errors import Refused
from ownlm.corpus.batches import Batches, fixed_sample, permuted


class Row:
    """A split whose token i is i."""

    def __init__(self, length):
        self.num_tokens = length

    def read(self, start, stop):
        return np.arange(start, min(stop, self.num_tokens), dtype=np.uint32)


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
def test_the_order_is_a_permutation(count, key):
    assert sorted(permuted(i, count, key) for i in range(count)) == list(range(count))


def test_orders_differ_between_epochs_and_seeds():
    orders = {tuple(permuted(i, 50, key) for i in range(50)) for key in range(20)}
    assert len(orders) == 20


@given(st.integers(100, 2000), st.sampled_from([4, 16, 33]), st.integers(1, 7), st.integers(0, 5))
def test_an_epoch_shows_every_block_once(length, context, rows, seed):
    batches = Batches(Row(length), context, rows, seed)
    seen = []
    for step in range(-(-2 * batches.blocks // rows)):
        batch = batches.step(step)
        assert batch.shape == (rows, context + 1)
        assert (np.diff(batch, axis=1) == 1).all()
        assert batch.min() >= 0 and batch.max() < length
        seen += batch[:, 0].tolist()
    first, second = seen[: batches.blocks], seen[batches.blocks : 2 * batches.blocks]
    assert len(set(first)) == batches.blocks == len(set(second))
    assert all(abs(a - b) >= context for a, b in zip(sorted(first), sorted(first)[1:]))


def test_the_number_of_processes_does_not_matter():
    batches = Batches(Row(5000), 16, 6, seed=3)
    whole = batches.step(7)
    halves = [batches.step(7, first=0, count=3), batches.step(7, first=3, count=3)]
    assert np.array_equal(whole, np.concatenate(halves))
    assert np.array_equal(whole, Batches(Row(5000), 16, 6, seed=3).step(7))
    assert not np.array_equal(whole, Batches(Row(5000), 16, 6, seed=4).step(7))


def test_a_text_shorter_than_a_window_is_refused_with_a_way_out():
    with pytest.raises(Refused, match="--context"):
        Batches(Row(30), 64, 2, seed=0)


def test_the_validation_sample_is_fixed_and_without_repetition():
    sample = fixed_sample(Row(5000), 16, 20, seed=1)
    assert np.array_equal(sample, fixed_sample(Row(5000), 16, 20, seed=1))
    assert len(set(sample[:, 0].tolist())) == 20
    assert fixed_sample(Row(10), 16, 20, seed=1).shape == (1, 10)
