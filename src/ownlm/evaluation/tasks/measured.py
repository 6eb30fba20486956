"""What the module of a task hands over: figures to be drawn again, rows, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ownlm.evaluation.tasks.bootstrap import Figure
from ownlm.evaluation.tasks.result import Row


@dataclass
class Measured:
    """See `result.TaskResult`, whose fields of the same names these become."""

    figures: Sequence[Figure]
    rows: list[Row]
    confusion: dict[str, Any] | None = None
    classes: list[dict[str, Any]] = field(default_factory=list)
    how: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown_labels: dict[str, int] = field(default_factory=dict)


def precision_recall(name: str, right: float, found: float, there: float) -> dict[str, Any]:
    """A line of a table of classes; F1 = 2PR / (P + R), 0 where it is undefined (as scikit-learn)."""
    return {
        "name": name,
        "precision": float(right / found) if found else 0.0,
        "recall": float(right / there) if there else 0.0,
        "f1": float(2 * right / (found + there)) if found + there else 0.0,
        "n": int(there),
    }
