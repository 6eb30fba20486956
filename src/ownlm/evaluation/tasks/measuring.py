"""Predictions → the figures of a task, with intervals, beside what simple answers reach on the same rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownlm.console.errors import Refused, missing_extra
from ownlm.evaluation.tasks.answers import measure_answers, sentence_with_most_question_words
from ownlm.evaluation.tasks.bootstrap import differences, metrics
from ownlm.evaluation.tasks.entities import measure_entities
from ownlm.evaluation.tasks.labels import always_the_most_frequent, measure_labels
from ownlm.evaluation.tasks.measured import Measured
from ownlm.evaluation.tasks.result import Baseline, TaskResult
from ownlm.evaluation.tasks.texts import (
    lead_1,
    measure_completions,
    measure_summaries,
    measure_translations,
    source_copied,
)
from ownlm.tasks.items import Chat, Item, Labelled, Pair, Question, Tagged

Predicted = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Way:
    """How a task is measured: its type of row, its figures, and its baseline."""

    row: type[Any]
    measure: Callable[[Any, Predicted], Measured]
    baseline: Callable[[Any], tuple[str, list[dict[str, Any]]]] | None = None


_LABELS = _Way(Labelled, measure_labels, always_the_most_frequent)
WAYS = {
    "classification": _LABELS,
    "sentiment": _LABELS,
    "ner": _Way(Tagged, measure_entities),
    "qa": _Way(Question, measure_answers, sentence_with_most_question_words),
    "translation": _Way(Pair, measure_translations, source_copied),
    "summarization": _Way(Pair, measure_summaries, lead_1),
    "completion": _Way(Pair, measure_completions),
    "chat": _Way(Chat, measure_completions),
}


PACKAGES = {"translation": ("sacrebleu", "BLEU"), "summarization": ("rouge_score", "ROUGE")}


def require(task: str) -> None:
    """Look for the package that the figures of a task need, before answers are written for minutes.

    Raises:
        UsageError: it is not installed.
    """
    package, figure = PACKAGES.get(task, ("", ""))
    if package and importlib.util.find_spec(package) is None:
        raise missing_extra(package.replace("_", "-"), "eval", figure)


def measure(task: str, items: Sequence[Item], predictions: Predicted, seed: int = 0) -> TaskResult:
    """The figures of a task.

    Args:
        task: a key of `WAYS`.
        items: the rows, each of the type that the task has.
        predictions: one a row, see `predictions.py`.
        seed: of the bootstrap; the same gives the same intervals.

    Returns:
        Figures with 95 % intervals from 1,000 resamples of the rows, baselines, rows, tables.

    Raises:
        Refused: there is no row, or none with a label that the model knows.
        UsageError: see `require`.
        ValueError: unknown task, rows of another type, another number of predictions than of rows.
    """
    way = WAYS.get(task)
    if way is None:
        raise ValueError(f"no task {task!r}: {', '.join(WAYS)}")
    if len(items) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(items)} rows")
    wrong = next((item for item in items if not isinstance(item, way.row)), None)
    if wrong is not None:
        raise ValueError(f"{wrong.where}: a {type(wrong).__name__} in rows of the task {task}")
    if not items:
        raise Refused("there is no row to measure.", why="A figure needs rows.")
    require(task)
    found = way.measure(items, predictions)
    return TaskResult(
        task,
        metrics(found.figures, len(items), seed),
        found.rows,
        [_baseline(way, items, found, seed)] if way.baseline else [],
        found.confusion,
        found.classes,
        found.how,
        found.notes,
        found.unknown_labels,
        found.figures,
    )


def _baseline(way: _Way, items: Sequence[Item], model: Measured, seed: int) -> Baseline:
    assert way.baseline is not None
    name, predicted = way.baseline(items)
    figures = way.measure(items, predicted).figures
    return Baseline(
        name, metrics(figures, len(items), seed), differences(model.figures, figures, len(items), seed)
    )
