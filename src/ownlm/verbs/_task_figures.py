"""How the figures of a task are shown: each with its interval, beside a baseline; which label is taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ownlm.console import output as out

if TYPE_CHECKING:
    from ownlm.evaluation.tasks.result import Baseline, TaskResult

WIDEST = 10  # labels of a whole confusion table
LISTED = 10  # else the pairs that are confused most
CUT = 24  # characters of a label


def show(result: TaskResult) -> None:
    """Figures and tables on stdout, notes on stderr."""
    from ownlm.evaluation.tasks.names import FIGURES

    baseline = result.baselines[0] if result.baselines else None
    headers = ["", "value", "95 % interval", "rows"]
    headers += [baseline.name, "difference", "p"] if baseline else []
    rows = []
    for name, value in result.metrics.items():
        low, high = (_number(name, value[end]) for end in ("low", "high"))
        words = FIGURES[name].words + (" (lower is better)" if FIGURES[name].better == "lower" else "")
        row = [words, _number(name, value["value"], unit=True), f"{low} to {high}", f"{value['n']:,}"]
        rows.append(row + (_beside(name, baseline) if baseline else []))
    out.result_table("", headers, rows, numeric=range(1, len(headers)))
    if result.classes:
        _show_classes(result)
    if result.confusion is not None:
        _show_confusion(result.confusion)
    for name, how in result.how.items():
        out.say(f"{name}: {how}", style="dim")
    for note in result.notes:
        out.warn(note)
    if len(result.rows) < 2:
        out.warn("one row says nothing about others.")


def _beside(name: str, baseline: Baseline) -> list[str]:
    if name not in baseline.metrics:
        return ["", "", ""]
    by = baseline.difference[name]
    value, low, high = (_number(name, by[end], sign=True) for end in ("value", "low", "high"))
    p = "< 0.001" if by["p"] < 0.001 else f"{by['p']:.3f}"
    return [_number(name, baseline.metrics[name]["value"], unit=True), f"{value} ({low} to {high})", p]


def _number(name: str, value: float, *, unit: bool = False, sign: bool = False) -> str:
    from ownlm.evaluation.tasks.names import FIGURES

    share = FIGURES[name].unit == "share"
    text = format(value * 100 if share else value, "+.1f" if sign else ".1f")
    return f"{text} %" if share and unit else text


def _show_classes(result: TaskResult) -> None:
    what = "type" if result.task == "ner" else "label"
    kept = sorted(result.classes, key=lambda each: -each["n"])[: 2 * LISTED]
    rows = [
        [
            _cut(each["name"]),
            *(f"{each[key] * 100:.1f} %" for key in ("precision", "recall", "f1")),
            each["n"],
        ]
        for each in kept
    ]
    out.result_table("", [what, "precision", "recall", "F1", "rows" if what == "label" else "entities"], rows,
                     numeric=(1, 2, 3, 4))  # fmt: skip
    if len(kept) < len(result.classes):
        out.say(f"{len(result.classes) - len(kept):,} more with fewer rows: --json", style="dim")


def _show_confusion(confusion: dict[str, Any]) -> None:
    labels, counts = confusion["labels"], confusion["counts"]
    if len(labels) <= WIDEST:
        headers = ["expected ↓  got →", *map(_cut, labels)]
        rows = [[_cut(label), *row] for label, row in zip(labels, counts) if any(row)]
        out.result_table("", headers, rows, numeric=range(1, len(headers)))
        return
    pairs = [
        (count, labels[i], labels[j])
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if count and i != j
    ]
    most = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:LISTED]
    rows = [[_cut(expected), _cut(got), count] for count, expected, got in most]
    out.result_table("", ["expected", "got", "rows"], rows, numeric=(2,))


def _cut(label: str) -> str:
    return label if len(label) <= CUT else label[: CUT - 1] + "…"
