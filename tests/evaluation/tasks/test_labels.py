"""Classification: figures by hand and by definition, words that are no label, labels the model does not know."""

from __future__ import annotations

import random

import pytest

from ownlm.console.errors import Refused
from ownlm.evaluation.tasks import measure
from ownlm.tasks.items import Labelled


def rows(*labels: str) -> list[Labelled]:
    return [Labelled(f"rows.jsonl:{n}", f"text {n}", label) for n, label in enumerate(labels, 1)]


def says(*labels: str) -> list[dict[str, str]]:
    return [{"label": label} for label in labels]


def macro_f1(expected: list[str], got: list[str]) -> float:
    """scikit-learn's f1_score(average="macro", zero_division=0), by its definition."""
    scores = []
    for label in {*expected, *got}:
        right = sum(e == g == label for e, g in zip(expected, got))
        found, there = got.count(label), expected.count(label)
        precision = right / found if found else 0.0
        recall = right / there if there else 0.0
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return sum(scores) / len(scores)


def test_figures_of_a_small_table_by_hand():
    found = measure("classification", rows("a", "a", "a", "b"), says("a", "a", "b", "b"))
    assert found.metrics["accuracy"]["value"] == 0.75
    assert found.metrics["macro_f1"]["value"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found.confusion == {"labels": ["a", "b"], "counts": [[2, 1], [0, 1]]}
    assert [each["n"] for each in found.classes] == [3, 1]
    assert found.classes[0] | {"name": "a"} == pytest.approx(
        {"name": "a", "precision": 1.0, "recall": 2 / 3, "f1": 0.8, "n": 3}
    )
    assert "calibration_error" not in found.metrics  # nobody said how sure it is
    assert [row.right for row in found.rows] == [True, True, False, True]


def test_macro_f1_is_scikit_learns():
    draw = random.Random(0)
    for number in range(20):
        names = "abcdef"[: draw.randint(2, 6)]
        expected = [draw.choice(names) for _ in range(40)]
        got = [draw.choice(names) for _ in range(40)]
        known = {name: 1 / len(names) for name in names}
        predicted = [{"label": label, "scores": known} for label in got]
        found = measure("classification", rows(*expected), predicted, seed=number)
        assert found.metrics["macro_f1"]["value"] == pytest.approx(macro_f1(expected, got))


def test_labels_that_a_resample_did_not_draw_do_not_count_in_it():
    labels = [str(number) for number in range(10)]
    found = measure("classification", rows(*labels), says(*labels)).metrics["macro_f1"]
    assert (found["value"], found["high"]) == (1, 1)
    assert found["low"] == pytest.approx(0.7225, abs=1e-4)  # Wilson for 10 of 10: every resample is all right


def test_calibration_error_by_hand():
    """Two rows at 0.9 of which one is right, two at 0.5 of which both are: (|1 - 1.8| + |2 - 1|) / 4."""
    predicted = [
        {"label": "a", "scores": {"a": 0.9, "b": 0.1}},
        {"label": "a", "scores": {"a": 0.9, "b": 0.1}},
        {"label": "b", "scores": {"b": 0.5, "a": 0.5}},
        {"label": "b", "scores": {"b": 0.5, "a": 0.5}},
    ]
    found = measure("sentiment", rows("a", "b", "b", "b"), predicted)
    assert found.metrics["calibration_error"]["value"] == pytest.approx((0.8 + 1.0) / 4)
    sure = [{"label": "a", "scores": {"a": 1.0}}] * 3
    assert measure("sentiment", rows("a", "a", "a"), sure).metrics["calibration_error"]["value"] == 0


def test_the_baseline_is_the_most_frequent_label_with_the_difference_to_it():
    found = measure("classification", rows(*"aaab"), says(*"aaab"))
    (baseline,) = found.baselines
    assert baseline.name == "always a"
    assert baseline.metrics["accuracy"]["value"] == 0.75
    assert baseline.difference["accuracy"]["value"] == 0.25
    assert 0 < baseline.difference["accuracy"]["p"] <= 1


def test_words_that_are_no_label_are_wrong_and_do_not_dilute_macro_f1():
    found = measure("classification", rows("a", "a", "b", "b"), says("a", "I think so", "b", "well"))
    assert found.metrics["accuracy"]["value"] == 0.5
    assert found.metrics["macro_f1"]["value"] == pytest.approx(2 / 3)  # mean of a and b alone
    assert any("2 of 4 answers are no label" in note and "I think so" in note for note in found.notes)
    assert found.confusion["labels"][:2] == ["a", "b"]


def test_labels_that_the_model_does_not_know_are_counted_and_said():
    predicted = [{"label": "a", "scores": {"a": 0.6, "b": 0.4}}] * 3
    found = measure("classification", rows("a", "c", "c"), predicted)
    assert found.unknown_labels == {"c": 2}
    assert any("2 of 3 rows have a label that the model does not know (c)" in note for note in found.notes)
    assert found.metrics["accuracy"]["value"] == pytest.approx(1 / 3)


def test_rows_without_any_label_that_the_model_knows_are_refused():
    predicted = [{"label": "LABEL_0", "scores": {"LABEL_0": 0.6, "LABEL_1": 0.4}}] * 2
    with pytest.raises(
        Refused, match=r"rows\.jsonl:1: .*none of the labels of these rows: a, c.*LABEL_0, LABEL_1"
    ):
        measure("classification", rows("a", "c"), predicted)


def test_labels_that_differ_by_case_alone_are_the_same_which_is_said():
    predicted = [{"label": "POSITIVE", "scores": {"POSITIVE": 0.8, "NEGATIVE": 0.2}}] * 2
    found = measure("sentiment", rows("positive", "negative"), predicted)
    assert found.metrics["accuracy"]["value"] == 0.5
    assert any("negative = NEGATIVE, positive = POSITIVE" in note for note in found.notes)


def test_many_labels_take_no_long_time_and_no_large_table():
    labels = [str(number % 700) for number in range(2100)]
    found = measure("classification", rows(*labels), says(*labels))
    assert found.metrics["macro_f1"]["value"] == pytest.approx(1.0)
