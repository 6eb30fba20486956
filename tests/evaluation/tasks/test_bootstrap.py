"""Intervals: those of other ways to compute them, the same for the same seed, honest where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest

from ownlm.evaluation.tasks.bootstrap import (
    SAMPLES,
    Cells,
    Figure,
    Table,
    differences,
    mean,
    mean_where,
    metrics,
)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(0.6, 0.1, 400)
    found = metrics([mean("accuracy", values)], 400, 0)["accuracy"]
    error = values.std() / np.sqrt(400)
    assert found["value"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert found["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert found["n"] == 400


def test_it_holds_the_true_value_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    held = 0
    for number in range(200):
        found = metrics([mean("accuracy", draw.random(60) < 0.7)], 60, number)["accuracy"]
        held += found["low"] <= 0.7 <= found["high"]
    assert 180 <= held <= 199


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).random(50)
    one, same, other = (metrics([mean("f1", values)], 50, seed)["f1"] for seed in (3, 3, 4))
    assert one == same
    assert one["value"] == other["value"] and one["low"] != other["low"]


def test_figures_are_drawn_on_the_same_rows():
    values = np.random.default_rng(0).random(50)
    found = metrics([mean("f1", values), mean("exact_match", values)], 50, 0)
    assert found["f1"] == found["exact_match"]


def test_where_nothing_varies_the_interval_is_wilsons_of_as_many_rows():
    all_right = metrics([mean("accuracy", [1.0] * 20)], 20, 0)["accuracy"]
    assert (all_right["value"], all_right["high"]) == (1.0, 1.0)
    assert all_right["low"] == pytest.approx(0.8389, abs=1e-4)  # Wilson for 20 of 20
    none = metrics([mean("chrf", [0.0] * 20, most=100)], 20, 0)["chrf"]
    assert none["high"] == pytest.approx(16.11, abs=1e-2)
    one = metrics([mean("f1", [0.5])], 1, 0)["f1"]
    assert one["low"] < 0.2 and one["high"] > 0.8
    alike = metrics([mean("f1", [0.1 + 0.2, 0.3, 0.3])], 3, 0)[
        "f1"
    ]  # no share of right rows: it does vary by nothing
    assert alike["low"] == pytest.approx(0.3) and alike["high"] == pytest.approx(0.3)


def test_rows_that_do_not_count_are_not_counted():
    values, counts = [1.0, 0.0, 1.0, 0.0], [True, True, False, False]
    found = metrics([mean_where("f1", values, counts)], 4, 0)["f1"]
    assert (found["value"], found["n"]) == (0.5, 2)


def test_cells_add_up_like_a_table():
    draw = np.random.default_rng(0)
    codes = draw.integers(-1, 30, (70, 3))
    table = np.zeros((70, 40))
    for row, cells in enumerate(codes):
        for cell in cells[cells >= 0]:
            table[row, cell] += 1
    weights = draw.integers(0, 4, (9, 70)).astype(np.float64)
    np.testing.assert_allclose(Cells(codes, 40).sums(weights), Table(table).sums(weights))
    assert not Cells(np.full((70, 2), -1), 5).sums(weights).any()


def test_a_difference_is_known_better_than_the_figures_it_is_made_of():
    draw = np.random.default_rng(0)
    hard = draw.normal(0, 1, 300)  # what both find hard
    a, b = (mean("f1", hard + draw.normal(shift, 0.1, 300)) for shift in (0.55, 0.5))
    found = differences([a], [b], 300, 0)["f1"]
    single = metrics([a], 300, 0)["f1"]
    assert found["value"] == pytest.approx(0.05, abs=0.02)
    assert found["high"] - found["low"] < (single["high"] - single["low"]) / 4
    assert found["p"] == pytest.approx(1 / (SAMPLES + 1))
    none = differences([a], [a], 300, 0)["f1"]
    assert (none["value"], none["p"]) == (0, 1)


def test_p_is_about_uniform_where_there_is_no_difference():
    draw = np.random.default_rng(2)
    ps = []
    for number in range(150):
        a, b = (mean("f1", draw.random(40)) for _ in range(2))
        ps.append(differences([a], [b], 40, number)["f1"]["p"])
    assert 0.35 < np.mean(ps) < 0.65
    assert np.mean(np.array(ps) < 0.05) < 0.13


def test_few_rows_do_not_make_a_small_p():
    for rows, p in ((1, 1.0), (3, 0.25), (5, 0.0625)):
        better, worse = mean("f1", [0.9] * rows), mean("f1", [0.1] * rows)
        assert differences([better], [worse], rows, 0)["f1"]["p"] == p


def test_figures_that_only_one_has_are_left_out():
    a, b = mean("f1", [0.0, 1.0]), mean("exact_match", [0.0, 1.0])
    assert differences([a], [b], 2, 0) == {}
    assert set(differences([a, b], [b], 2, 0)) == {"exact_match"}


def test_a_resample_without_a_value_is_left_out():
    def score(sums):
        with np.errstate(invalid="ignore"):
            return sums[:, 0] / sums[:, 1]

    rows = np.array([[1.0, 1.0], [0.0, 0.0]])
    found = metrics([Figure("f1", Table(rows), score, 2)], 2, 0)["f1"]
    assert found["value"] == 1.0 and np.isfinite(found["low"])
