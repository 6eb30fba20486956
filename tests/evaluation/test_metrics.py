"""Intervals: they hold the truth as often as they say, and depend on the seed alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ownlm.evaluation.metrics import Z95, ratio_interval, share, shown


def documents(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nats and bytes of documents of very different length; the true ratio is 2."""
    sizes = generator.lognormal(5, 0.7, count)
    return sizes * generator.gamma(8, 2 / 8, count), sizes


def test_the_interval_holds_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(5)
    repeats, hits, below = 200, 0, 0
    for repeat in range(repeats):
        found = ratio_interval(*documents(generator, 40), seed=repeat)
        hits += found["low"] <= 2 <= found["high"]
        below += found["high"] < 2
    assert 0.89 <= hits / repeats <= 0.98
    assert below / repeats < 0.09  # misses are not all on one side


@pytest.mark.parametrize("count", [50, 1000, 1001])  # up to 1,000 multinomial weights, above Poisson ones
def test_the_interval_is_that_of_documents_drawn_by_index(count: int) -> None:
    nats, sizes = documents(np.random.default_rng(count), count)
    rows = np.random.default_rng(1).integers(count, size=(4000, count))
    ratios = nats[rows].sum(1) / sizes[rows].sum(1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    found = ratio_interval(nats, sizes, seed=0)
    assert found["value"] == pytest.approx(nats.sum() / sizes.sum())
    assert found["n"] == count
    assert abs(found["low"] - low) < 0.1 * (high - low)
    assert abs(found["high"] - high) < 0.1 * (high - low)


@pytest.mark.parametrize("count", [30, 1500])
def test_same_seed_same_interval_another_seed_another(count: int) -> None:
    nats, sizes = documents(np.random.default_rng(0), count)
    first, again, other = (ratio_interval(nats, sizes, seed) for seed in (7, 7, 8))
    assert first == again
    assert (first["low"], first["high"]) != (other["low"], other["high"])
    assert first["value"] == other["value"]


def test_a_change_is_made_to_the_value_and_to_both_ends() -> None:
    nats, sizes = documents(np.random.default_rng(0), 40)
    plain, changed = ratio_interval(nats, sizes, 3), ratio_interval(nats, sizes, 3, math.exp)
    for key in ("value", "low", "high"):
        assert changed[key] == pytest.approx(math.exp(plain[key]))
    assert plain["low"] < plain["value"] < plain["high"]


def test_one_document_has_no_interval() -> None:
    assert ratio_interval(np.array([6.0]), np.array([4.0]), 0) == {
        "value": 1.5,
        "low": 1.5,
        "high": 1.5,
        "n": 1,
    }


def test_empty_documents_do_no_harm() -> None:
    found = ratio_interval(np.array([0.0, 0.0, 6.0]), np.array([0.0, 0.0, 4.0]), 0)
    assert (found["low"], found["high"]) == (1.5, 1.5)


@pytest.mark.parametrize(("good", "n"), [(1, 3), (7, 20), (430, 500), (0.5, 2)])
def test_the_ends_of_wilsons_interval_are_where_the_score_test_just_refuses(good: float, n: int) -> None:
    found = share(good, n)
    assert found["low"] < found["value"] == good / n < found["high"]
    for end in (found["low"], found["high"]):
        assert abs(found["value"] - end) == pytest.approx(Z95 * math.sqrt(end * (1 - end) / n))


def test_shares_at_the_ends() -> None:
    none, all_ = share(0, 40), share(40, 40)
    assert none["low"] == none["value"] == 0
    assert all_["high"] == all_["value"] == 1
    assert none["high"] == pytest.approx(1 - all_["low"])
    assert share(0, 0) == {"value": 0.0, "low": 0.0, "high": 1.0, "n": 0}


def test_figures_are_shown_with_their_interval() -> None:
    value = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 1200}
    assert shown(value, 2) == "0.50 (0.25 to 0.75, n = 1,200)"
    assert shown(value, 0, percent=True) == "50 % (25 to 75, n = 1,200)"
