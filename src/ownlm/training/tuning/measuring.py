"""The task's figures on held-out rows, before training and after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError
from ownlm.corpus.batches import permuted
from ownlm.seeds import derive
from ownlm.tasks.items import Item

if TYPE_CHECKING:
    from ownlm.evaluation.tasks.result import TaskResult

Row = TypeVar("Row")


def sample_of(items: Sequence[Row], most: int, seed: int) -> list[Row]:
    """At most so many rows, drawn from all of them, in their order."""
    if len(items) <= most:
        return list(items)
    key = derive(seed, "measured rows")
    return [items[i] for i in sorted(permuted(i, len(items), key) for i in range(most))]


def measured(
    folder: Path,
    task: str,
    items: Sequence[Item],
    seed: int,
    what: str,
    *,
    labels: Sequence[str] | None = None,
) -> TaskResult | None:
    """What a model folder reaches on the rows; None, said, where it cannot do the task."""
    from ownlm.evaluation.tasks.measuring import measure
    from ownlm.loaded import load
    from ownlm.predicting import predictions

    if not items:
        return None
    try:
        loaded = load(folder)
        return measure(task, items, predictions(loaded, task, items, labels=labels, truncate=True), seed)
    except OwnlmError as error:
        out.say(f"{what}: not measured, {error.what}")
        return None


def say_result(result: TaskResult, before: TaskResult | None) -> None:
    """The figures, one a line."""
    earlier = before.metrics if before else {}
    for name, metric in result.metrics.items():
        was = f"{earlier[name]['value']:.4g} → " if name in earlier else ""
        out.say(
            f"held out, {name}: {was}{metric['value']:.4g} (95 % {metric['low']:.4g} to {metric['high']:.4g}, "
            f"n = {metric['n']:,})",
            style="bold",
        )
    for baseline in result.baselines:
        shown = ", ".join(f"{name} {metric['value']:.4g}" for name, metric in baseline.metrics.items())
        out.say(f"  {baseline.name}: {shown}")
