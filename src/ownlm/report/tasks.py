"""The tasks that a run was measured on: figures beside baselines, tables, and rows with those that went wrong first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.report.facts import Fact, fact_rows
from ownlm.report.log import number, records

FOLDER = "scores"  # where `evaluation.tasks.stored` writes one file a task
MAX_BYTES = 64 * 2**20
MAX_LABELS = 30  # of a confusion table
MAX_FILTERS = 12  # labels to choose rows by; report.css has a rule for each
TITLES = {"ner": "Named entities", "qa": "Question answering"}
STATES = {"wrong": "wrong", "partly": "partly right", "right": "right"}


@dataclass(frozen=True)
class RowShown:
    """One row: its texts, its figure, and what it is chosen by."""

    where: str
    input: str
    expected: list[str]
    got: str
    figure: str
    state: str  # a key of STATES, "" where a text is only more or less like the others
    label: int | None  # number of its expected label among the filters


@dataclass(frozen=True)
class TaskShown:
    """What the page says about one task.

    Attributes:
        identity: for names inside the page. facts: figures beside baselines. classes: (name, cells).
        confusion: (label, [(count, share of its row, on the diagonal)]). states, labels: the filters, with numbers.
        more: rows that are not shown.
    """

    name: str
    identity: str
    data: str
    notes: list[str]
    how: list[str]
    facts: list[Fact]
    classes: list[tuple[str, list[str]]]
    labels_confused: list[str]
    confusion: list[tuple[str, list[tuple[int, float, bool]]]]
    rows: list[RowShown]
    figure_name: str
    states: list[tuple[str, str, int]]
    labels: list[tuple[str, int]]
    more: int


def tasks_shown(run_folder: Path) -> tuple[list[TaskShown], list[str]]:
    """(tasks, what could not be read)."""
    shown: list[TaskShown] = []
    problems = []
    for path in sorted((run_folder / FOLDER).glob("*.json")):
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("not a JSON object")
        except (OSError, ValueError) as error:
            problems.append(f"{FOLDER}/{path.name} cannot be read: {error}")
            continue
        shown.append(_task(content, f"task-{len(shown) + 1}"))
    return shown, problems


def _task(content: dict[str, Any], identity: str) -> TaskShown:
    main = next(iter(_part(content, "metrics")), "")
    found = records(content, "shown")
    expected = [_first(row) for row in found]
    labels: list[str] = []
    if _part(content, "confusion"):
        labels = sorted(set(expected), key=lambda label: (-expected.count(label), label))[:MAX_FILTERS]
    there = {name for row in found for name in _part(row, "values")}
    column = next((name for name in ("confidence", "f1") if name in there), main)
    rows = [_row(row, column, content, labels) for row in found]
    names, confusion = _confusion(_part(content, "confusion"))
    return TaskShown(
        name=TITLES.get(str(content.get("task")), str(content.get("task") or "task").capitalize()),
        identity=identity,
        data=f"{content.get('data')}, {int(number(content.get('rows')) or 0):,} rows",
        notes=_texts(content.get("notes")),
        how=[f"{name}: {words}" for name, words in _part(content, "how").items()],
        facts=fact_rows({"facts": [_fact(content, name) for name in _part(content, "metrics")]}, {}),
        classes=[_class(each) for each in records(content, "classes")],
        labels_confused=names,
        confusion=confusion,
        rows=rows,
        figure_name=str(_name(content, column)["words"]),
        states=[(state, words, sum(row.state == state for row in rows)) for state, words in STATES.items()],
        labels=[(label, expected.count(label)) for label in labels] if len(labels) > 1 else [],
        more=max(int(number(content.get("rows")) or 0) - len(rows), 0),
    )


def _part(content: dict[str, Any], name: str) -> dict[str, Any]:
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _name(content: dict[str, Any], figure: str) -> dict[str, Any]:
    unit = "share" if figure == "confidence" else ""
    return {"words": figure, "unit": unit, "better": "higher"} | _part(_part(content, "names"), figure)


def _fact(content: dict[str, Any], figure: str) -> dict[str, Any]:
    """A figure as the facts of a run have it: beside the same before fine-tuning, and what simple answers reach."""
    name = _name(content, figure)
    others = [("before fine-tuning", _part(content, "before"))]
    others += [(str(each.get("name")), _part(each, "metrics")) for each in records(content, "baselines")]
    return {
        "name": name["words"],
        "value": _part(content, "metrics")[figure],
        "unit": name["unit"] if name["unit"] == "share" else "",
        "baselines": [
            {"name": words, "value": metrics[figure], "better": name["better"]}
            for words, metrics in others
            if figure in metrics
        ],
        "note": str(name.get("source") or ""),
    }


def _class(each: dict[str, Any]) -> tuple[str, list[str]]:
    shares = [f"{(number(each.get(key)) or 0.0) * 100:.1f} %" for key in ("precision", "recall", "f1")]
    return str(each.get("name")), [*shares, f"{int(number(each.get('n')) or 0):,}"]


def _confusion(table: dict[str, Any]) -> tuple[list[str], list[tuple[str, list[tuple[int, float, bool]]]]]:
    names, counts = table.get("labels"), table.get("counts")
    if not isinstance(names, list) or not isinstance(counts, list) or len(names) > MAX_LABELS:
        return [], []
    rows = []
    for number_of_row, (name, row) in enumerate(zip(names, counts)):
        cells = [int(number(count) or 0) for count in row] if isinstance(row, list) else []
        total = sum(cells)
        if total:
            rows.append(
                (
                    str(name),
                    [(count, count / total, place == number_of_row) for place, count in enumerate(cells)],
                )
            )
    return [str(name) for name in names], rows


def _row(row: dict[str, Any], column: str, content: dict[str, Any], labels: list[str]) -> RowShown:
    value = number(_part(row, "values").get(column))
    values = [v for v in map(number, _part(row, "values").values()) if v is not None]
    right = row.get("right")
    soft = number(_part(row, "values").get("f1", _part(row, "values").get("entity_f1")))
    state = (
        {True: "right", False: "partly" if soft else "wrong"}.get(right, "")
        if isinstance(right, bool)
        else ""
    )
    if value is None and values:
        value = values[0]
    unit = _name(content, column)["unit"]
    figure = "" if value is None else f"{value * 100:.0f} %" if unit == "share" else f"{value:.1f}"
    label = _first(row)
    return RowShown(
        where=str(row.get("where") or ""),
        input=str(row.get("input") or ""),
        expected=_texts(row.get("expected")),
        got=str(row.get("got") or ""),
        figure=figure,
        state=state,
        label=labels.index(label) if label in labels else None,
    )


def _texts(listed: object) -> list[str]:
    return [str(text) for text in listed] if isinstance(listed, list) else []


def _first(row: dict[str, Any]) -> str:
    return next(iter(_texts(row.get("expected"))), "")
