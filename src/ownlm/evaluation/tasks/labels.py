"""Classification: accuracy, macro-F1, calibration error, and which label is taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import Refused
from ownlm.evaluation.tasks.bootstrap import Cells, Figure, Floats, Table, mean
from ownlm.evaluation.tasks.measured import Measured, precision_recall
from ownlm.evaluation.tasks.result import Row
from ownlm.tasks.items import Labelled

BINS = 15  # as in Guo et al. 2017, "On calibration of modern neural networks", §2
NAMED = 10  # labels that a message lists


def measure_labels(items: Sequence[Labelled], predictions: Sequence[Mapping[str, Any]]) -> Measured:
    """The figures of `LabelPrediction`s.

    Raises:
        Refused: none of the rows has a label that the model knows.
    """
    known = list(dict.fromkeys(label for each in predictions for label in each.get("scores", ())))
    spelled = _spelling({item.label for item in items}, known)
    expected = [spelled.get(item.label, item.label) for item in items]
    got = [str(each["label"]).strip() for each in predictions]
    unknown = Counter(item.label for item, label in zip(items, expected) if known and label not in set(known))
    if sum(unknown.values()) == len(items):
        refuse_unknown_labels(items, known)
    counted = set(expected) | (set(got) & set(known))  # F1 is about these; other words are no labels
    names = sorted(counted) + sorted(set(got) - counted)
    index = {name: number for number, name in enumerate(names)}
    truth = np.array([index[label] for label in expected])
    guess = np.array([index[label] for label in got])
    right = truth == guess
    figures = [mean("accuracy", right), _macro_f1(truth, guess, len(names), len(counted))]
    confidence = [each.get("scores", {}).get(each["label"]) for each in predictions]
    if all(value is not None for value in confidence):
        figures.append(calibration_error(np.array(confidence, np.float64), right))
    table = np.zeros((len(names), len(names)), np.int64)
    np.add.at(table, (truth, guess), 1)
    return Measured(
        figures,
        [
            Row(item.where, item.text, (item.label,), label, bool(hit),
                {"accuracy": float(hit)} | ({"confidence": float(sure)} if sure is not None else {}))
            for item, label, hit, sure in zip(items, got, right, confidence)
        ],
        {"labels": names, "counts": table.tolist()},
        [_class(name, number, table) for number, name in enumerate(names) if name in counted],
        notes=_notes(len(items), spelled, unknown, [label for label in got if label not in counted]),
        unknown_labels=dict(unknown.most_common()),
    )  # fmt: skip


def always_the_most_frequent(items: Sequence[Labelled]) -> tuple[str, list[dict[str, Any]]]:
    """The baseline: the label that most of these rows have, for each row."""
    counted = Counter(item.label for item in items)
    label = min(counted, key=lambda name: (-counted[name], name))
    return f"always {label}", [{"label": label}] * len(items)


def calibration_error(confidence: Floats, right: npt.NDArray[np.bool_]) -> Figure:
    """Σ over bins of |rows that are right - sum of their confidence| / rows: bins of equal width, upper edges included."""
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows = np.zeros((len(bins), BINS + 1))
    rows[np.arange(len(bins)), bins] = right - confidence
    rows[:, BINS] = 1

    def score(sums: Floats) -> Floats:
        error: Floats = np.abs(sums[:, :BINS]).sum(axis=1) / sums[:, BINS]
        return error

    return Figure("calibration_error", Table(rows), score, len(bins))


def _macro_f1(truth: npt.NDArray[Any], guess: npt.NDArray[Any], names: int, counted: int) -> Figure:
    """The mean over labels that rows have or were given; the first `counted` names are labels."""
    right = np.where(truth == guess, truth, -1)
    codes = np.stack([right, names + guess, 2 * names + truth], axis=1).astype(np.int64)

    def score(sums: Floats) -> Floats:
        hits, found, there = (sums[:, start : start + counted] for start in (0, names, 2 * names))
        met = found + there
        f1 = np.divide(2 * hits, met, out=np.zeros_like(hits), where=met > 0)
        each: Floats = f1.sum(axis=1) / np.maximum((met > 0).sum(axis=1), 1)
        return each

    return Figure("macro_f1", Cells(codes, 3 * names), score, len(truth))


def _class(name: str, number: int, table: npt.NDArray[np.int64]) -> dict[str, Any]:
    return precision_recall(name, table[number, number], table[:, number].sum(), table[number].sum())


def _spelling(labels: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """Labels of rows → how the model writes them, where only upper and lower case differ."""
    by_fold: dict[str, list[str]] = {}
    for name in known:
        by_fold.setdefault(name.casefold(), []).append(name)
    found = {}
    for label in labels:
        same = by_fold.get(label.casefold(), [])
        if label not in known and len(same) == 1:
            found[label] = same[0]
    return found


def _notes(
    rows: int, spelled: Mapping[str, str], unknown: Mapping[str, int], no_labels: Sequence[str]
) -> list[str]:
    notes = []
    if spelled:
        pairs = ", ".join(f"{label} = {name}" for label, name in sorted(spelled.items())[:NAMED])
        notes.append(f"Labels that differ by case alone count as the same: {pairs}.")
    if unknown:
        number = sum(unknown.values())
        notes.append(
            f"{number:,} of {rows:,} rows have a label that the model does not know ({_listed(unknown)}): "
            "they count as wrong."
        )
    if no_labels:
        notes.append(
            f"{len(no_labels):,} of {rows:,} answers are no label ({_listed(Counter(no_labels))}): they count as "
            "wrong, and macro-F1 is the mean over the labels alone."
        )
    return notes


def _listed(counted: Mapping[str, int]) -> str:
    most = sorted(counted, key=lambda name: (-counted[name], name))
    more = f" and {len(most) - NAMED:,} more" if len(most) > NAMED else ""
    return ", ".join(name[:40] or '""' for name in most[:NAMED]) + more


def refuse_unknown_labels(items: Sequence[Labelled], known: Sequence[str]) -> None:
    """Refuse rows of which none has a label that the model knows, upper and lower case being the same.

    Raises:
        Refused: with the labels of both.
    """
    there = Counter(item.label for item in items)
    if {label.casefold() for label in there} & {label.casefold() for label in known}:
        return
    raise Refused(
        f"the model knows none of the labels of these rows: {_listed(there)}.",
        where=items[0].where,
        why=f"Its labels are {_listed(dict.fromkeys(known, 1))}.",
        do="write the model's names into the column of the labels, or: ownlm finetune MODEL DATA -o RUN",
    )
