"""What is known about how well a model does a task, said before it does it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ownlm.console import output as out

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

SAME = {"classification": ("classification", "sentiment"), "sentiment": ("sentiment", "classification")}


def say_measured(loaded: LoadedModel, task: str) -> None:
    """Say the measured score of a task, or that there is none and how it is measured."""
    if not out.from_cli():
        return
    scores, names = loaded.run.get("scores"), SAME.get(task, (task,))
    for name in names:
        known = scores.get(name) if isinstance(scores, dict) else None
        after = known.get("after") if isinstance(known, dict) else None
        if isinstance(known, dict) and isinstance(after, dict) and after:
            out.say(f"{name}: {_figure(after)} on {known.get('data')}, measured.", style="dim")
            return
    taught = (
        "" if set(names) & set(loaded.taught) else f", and was not taught it ({', '.join(loaded.taught)})"
    )
    place = shlex.quote(str(loaded.path))
    out.say(
        f"{loaded.path} has no measured score for {task}{taught}. "
        f"Measure it: ownlm evaluate {place} DATA --task {task}"
    )


def _figure(metrics: dict[str, dict[str, float]]) -> str:
    """The first figure, which is the one to look at."""
    from ownlm.evaluation.tasks.names import FIGURES, shown

    name, value = next(iter(metrics.items()))
    if name not in FIGURES:
        return f"{name} {value.get('value')}"
    low, high = shown(name, value["low"]), shown(name, value["high"])
    return f"{FIGURES[name].words} {shown(name, value['value'])} ({low} to {high}, {value['n']:,} rows)"
