"""What holds for every task: rows of their own type, one prediction each, figures that are drawn again together."""

from __future__ import annotations

import json
import time

import pytest

from ownlm.console.errors import Refused
from ownlm.evaluation.tasks import measure, paired_bootstrap
from ownlm.evaluation.tasks.measuring import WAYS
from ownlm.evaluation.tasks.names import FIGURES, shown
from ownlm.evaluation.tasks.predictions import TASKS
from ownlm.tasks.items import Answer, Chat, Labelled, Pair, Question, Tagged

CHAT = Chat("r:1", ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}))
EXAMPLES = {
    "classification": (Labelled("r:1", "a", "x"), {"label": "x", "scores": {"x": 0.9, "y": 0.1}}),
    "sentiment": (Labelled("r:1", "a", "x"), {"label": "x"}),
    "ner": (Tagged("r:1", ("a", "b"), ("B-X", "O")), {"tags": ["B-X", "O"]}),
    "qa": (
        Question("r:1", "a b", "c?", (Answer("b", 2),)),
        {"answer": "b", "score": 0.5, "start": 2, "end": 3},
    ),
    "translation": (Pair("r:1", "a", "b", (), ("en", "de")), {"text": "b"}),
    "summarization": (Pair("r:1", "a. c.", "b"), {"text": "b"}),
    "completion": (Pair("r:1", "a", "b"), {"text": "b", "finish_reason": "stop"}),
    "chat": (CHAT, {"text": "b"}),
}


def test_every_task_has_a_way():
    assert set(WAYS) == set(EXAMPLES) == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_a_result_is_complete_and_fits_into_json(task):
    item, prediction = EXAMPLES[task]
    found = measure(task, [item] * 3, [prediction] * 3)
    content = json.loads(json.dumps(found.as_dict()))
    assert content["rows"] == 3 and content["task"] == task
    for name, value in content["metrics"].items():
        assert set(value) == {"value", "low", "high", "n"} and value["low"] <= value["value"] <= value["high"]
        assert content["names"][name]["words"] == FIGURES[name].words
    row = json.loads(json.dumps(found.rows[0].as_dict()))
    assert {"where", "input", "expected", "got"} <= set(row) and row["where"] == "r:1"
    assert measure(task, [item] * 3, [prediction] * 3).metrics == found.metrics


@pytest.mark.parametrize("task", TASKS)
def test_what_cannot_be_measured(task):
    item, prediction = EXAMPLES[task]
    with pytest.raises(Refused, match="no row to measure"):
        measure(task, [], [])
    with pytest.raises(ValueError, match="1 predictions for 2 rows"):
        measure(task, [item] * 2, [prediction])
    other = EXAMPLES["ner" if task != "ner" else "qa"][0]
    with pytest.raises(ValueError, match="r:1: a (Tagged|Question) in rows of the task"):
        measure(task, [item, other], [prediction] * 2)


def test_an_unknown_task():
    with pytest.raises(ValueError, match="no task 'poetry'"):
        measure("poetry", [], [])


def test_two_models_on_the_same_rows():
    items = [Labelled(f"r:{n}", str(n), "ab"[n % 2]) for n in range(100)]
    good = measure("sentiment", items, [{"label": "ab"[n % 2] if n % 10 else "a"} for n in range(100)])
    poor = measure("sentiment", items, [{"label": "ab"[n % 2] if n % 3 else "a"} for n in range(100)])
    found = paired_bootstrap(good, poor)
    assert found["accuracy"]["value"] == pytest.approx(
        good.metrics["accuracy"]["value"] - poor.metrics["accuracy"]["value"]
    )
    assert found["accuracy"]["p"] < 0.05
    back = paired_bootstrap(poor, good)["accuracy"]
    assert back["value"] == -found["accuracy"]["value"] and back["low"] == pytest.approx(
        -found["accuracy"]["high"]
    )
    with pytest.raises(ValueError, match="other rows"):
        paired_bootstrap(good, measure("sentiment", items[:50], [{"label": "a"}] * 50))
    moved = [Labelled(f"q:{n}", str(n), "ab"[n % 2]) for n in range(100)]
    with pytest.raises(ValueError, match="other rows"):
        paired_bootstrap(good, measure("sentiment", moved, [{"label": "a"}] * 100))


def test_wrong_rows_come_first_those_the_model_was_surest_of_before():
    items = [Labelled(f"r:{n}", str(n), "a") for n in range(4)]
    sure = [0.6, 0.9, 0.7, 0.8]
    predicted = [{"label": "b", "scores": {"b": s, "a": 1 - s}} for s in sure]
    predicted[3] = {"label": "a", "scores": {"a": 0.8, "b": 0.2}}
    assert [row.where for row in measure("sentiment", items, predicted).worst()] == ["r:1", "r:2", "r:0"]


def test_five_thousand_rows_are_resampled_in_a_moment():
    items = [Labelled(f"r:{n}", "t", str(n % 20)) for n in range(5000)]
    predicted = [{"label": str(n % 21), "scores": {str(k): 0.05 for k in range(21)}} for n in range(5000)]
    start = time.process_time()
    measure("classification", items, predicted)
    assert time.process_time() - start < 10  # about half a second; the bound is for a loaded machine


def test_figures_for_a_person():
    assert shown("accuracy", 0.8316) == "83.2 %" and shown("bleu", 27.449) == "27.4"
