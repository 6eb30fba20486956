"""What measuring a task gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ownlm.evaluation.metrics import Metric
from ownlm.evaluation.tasks.bootstrap import Figure, differences
from ownlm.evaluation.tasks.names import FIGURES


@dataclass(frozen=True)
class Row:
    """What came of one row.

    Attributes:
        where: `file:line`.
        input: what the model was given, as plain text.
        expected: what is right, the best first.
        got: what the model gave.
        right: whether that is right; None where a text is only more or less like the others.
        values: figures of this row alone.
    """

    where: str
    input: str
    expected: tuple[str, ...]
    got: str
    right: bool | None
    values: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: one line of `--output`."""
        right = {} if self.right is None else {"right": self.right}
        expected = self.expected[0] if len(self.expected) == 1 else list(self.expected)
        return {
            "where": self.where,
            "input": self.input,
            "expected": expected,
            "got": self.got,
            **right,
            **self.values,
        }


@dataclass(frozen=True)
class Baseline:
    """What something simple reaches on the same rows.

    Attributes:
        name: what it does. metrics: its figures. difference: the model's figures minus these, with p.
    """

    name: str
    metrics: dict[str, Metric]
    difference: dict[str, dict[str, float]]


@dataclass
class TaskResult:
    """Figures of a task on some rows.

    Attributes:
        task: its name.
        metrics: name → value with its interval; the first is the one to look at.
        rows: one a row, in their order.
        baselines: what simple answers reach.
        confusion: labels, and counts [expected, got] as lists; None where there are no labels.
        classes: precision, recall, F1 and n of each label, or of each type of entity.
        how: what decides a figure: signatures, tokenizers, rules.
        notes: what a reader of the figures has to know.
        unknown_labels: label of rows that the model does not know → how many rows.
        figures: what `paired_bootstrap` draws again.
    """

    task: str
    metrics: dict[str, Metric]
    rows: list[Row]
    baselines: list[Baseline] = field(default_factory=list)
    confusion: dict[str, Any] | None = None
    classes: list[dict[str, Any]] = field(default_factory=list)
    how: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown_labels: dict[str, int] = field(default_factory=dict)
    figures: Sequence[Figure] = ()

    def as_dict(self) -> dict[str, Any]:
        """All but the rows, for JSON."""
        return {
            "task": self.task,
            "rows": len(self.rows),
            "metrics": self.metrics,
            "names": {name: _name(name) for name in self.metrics},
            "baselines": [
                {"name": each.name, "metrics": each.metrics, "difference": each.difference}
                for each in self.baselines
            ],
            "confusion": self.confusion,
            "classes": self.classes,
            "how": self.how,
            "notes": self.notes,
            "unknown_labels": self.unknown_labels,
        }

    def worst(self) -> list[Row]:
        """Rows that are not right, furthest from it first; all rows where none is right or wrong.

        Of wrong labels those come first that the model was surest of.
        """
        main = next(iter(self.metrics))
        judged = [row for row in self.rows if row.right is not True]
        return sorted(judged, key=lambda row: _distance(row, main))


def _distance(row: Row, main: str) -> tuple[float, float]:
    value = row.values.get(main, next(iter(row.values.values()), 0.0))
    return value, -row.values.get("confidence", 0.0)


def _name(name: str) -> dict[str, str]:
    known = FIGURES[name]
    return {"words": known.words, "unit": known.unit, "better": known.better, "source": known.source}


def paired_bootstrap(a: TaskResult, b: TaskResult, seed: int = 0) -> dict[str, dict[str, float]]:
    """How much better `a` is than `b` on the same rows: name → value (a - b), low, high, n and p.

    Rows of one data set are easy or hard for both, so their difference is known better than either figure.

    Raises:
        ValueError: they are about other rows.
    """
    same = a.task == b.task and len(a.rows) == len(b.rows)
    if not same or any(
        (x.where, x.input, x.expected) != (y.where, y.input, y.expected) for x, y in zip(a.rows, b.rows)
    ):
        raise ValueError("the two results are about other rows: measure both on the same data")
    return differences(a.figures, b.figures, len(a.rows), seed)
