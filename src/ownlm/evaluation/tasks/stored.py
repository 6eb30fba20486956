"""Figures of a task in a run folder: the figures in run.json, tables and rows beside it for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ownlm.evaluation.tasks.result import Row, TaskResult
from ownlm.json_files import read_object
from ownlm.model.checkpoint import write_json

FOLDER = "scores"
KEPT_WRONG, KEPT_RIGHT = 200, 50  # rows for the report
KEPT_CHARACTERS = 1500  # of each text


def store_scores(
    folder: Path, result: TaskResult, data: str, before: TaskResult | None = None
) -> dict[str, Any]:
    """Write a result into a run folder: `scores` of run.json, and `scores/TASK.json`.

    Args:
        folder: a run folder. result: what was measured.
        data: what was measured on, as it was typed.
        before: the same before fine-tuning. When it is not given, what stands in run.json for the same data stays.

    Returns:
        What run.json says now.
    """
    path = folder / "run.json"
    run = read_object(path)
    stored = run.get("scores")
    scores: dict[str, Any] = stored if isinstance(stored, dict) else {}
    there = scores.get(result.task)
    earlier = there.get("before") if isinstance(there, dict) and there.get("data") == data else None
    scores[result.task] = {
        "before": before.metrics if before is not None else earlier,
        "after": result.metrics,
        "data": data,
    }
    run["scores"] = scores
    detail = folder / FOLDER
    detail.mkdir(exist_ok=True)
    content = {"data": data, "before": scores[result.task]["before"], **result.as_dict(), **_rows(result)}
    write_json(detail / f"{result.task}.json", content)
    write_json(path, run)
    return run


def _rows(result: TaskResult) -> dict[str, Any]:
    """Rows for the report: those that are furthest from right first, then some that are right."""
    worst = result.worst()
    right = [row for row in result.rows if row.right is True]
    shown = [*worst[:KEPT_WRONG], *right[:KEPT_RIGHT]]
    return {
        "wrong": len(worst) if any(row.right is not None for row in result.rows) else None,
        "shown": [_short(row) for row in shown],
    }


def _short(row: Row) -> dict[str, Any]:
    return {
        "where": row.where,
        "input": _cut(row.input),
        "expected": [_cut(text) for text in row.expected[:3]],
        "got": _cut(row.got),
        "right": row.right,
        "values": row.values,
    }


def _cut(text: str) -> str:
    more = len(text) - KEPT_CHARACTERS
    return text if more <= 0 else f"{text[:KEPT_CHARACTERS]} … ({more:,} more characters)"
