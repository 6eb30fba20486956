"""chrF: how many runs of 1 to 6 characters two texts share (Popović 2015; the defaults of sacrebleu: chrF2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ownlm.evaluation.tasks.bootstrap import Figure, Floats, Table

ORDER, BETA = 6, 2
SIGNATURE = f"case:mixed|eff:yes|nc:{ORDER}|nw:0|space:no"

Grams = list[Counter[str]]


def chrf(texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Figure, Floats]:
    """(the figure, the chrF of each row); of several references the one with the higher chrF counts in each row.

    Statistics of a row: for each length the runs of the text, of the reference, and of both: [rows, 3 × 6].
    """
    statistics = np.array([_best(text, right) for text, right in zip(texts, references)], np.float64)
    statistics = statistics.reshape(-1, 3 * ORDER)
    return Figure("chrf", Table(statistics), score, len(texts), most=100.0), score(statistics)


def score(sums: Floats) -> Floats:
    """Sums [samples, 3 × 6] → chrF (0 to 100): precision and recall are means over the lengths that both texts have."""
    ours, theirs, both = sums.reshape(-1, ORDER, 3).transpose(2, 0, 1)
    used = (ours > 0) & (theirs > 0)
    lengths = np.maximum(used.sum(axis=1), 1)
    precision = np.divide(both, ours, out=np.zeros_like(both), where=used).sum(axis=1) / lengths
    recall = np.divide(both, theirs, out=np.zeros_like(both), where=used).sum(axis=1) / lengths
    below = BETA**2 * precision + recall
    top = (1 + BETA**2) * precision * recall
    return 100 * np.divide(top, below, out=np.zeros_like(top), where=below > 0)


def _best(text: str, references: Sequence[str]) -> list[int]:
    grams = _grams(text)
    found = [_met(grams, _grams(reference)) for reference in references]
    if len(found) == 1:
        return found[0]
    values = score(np.array(found, np.float64))
    return found[int(np.argmax(values))]


def _grams(text: str) -> Grams:
    line = "".join(text.split())
    return [
        Counter(line[start : start + n] for start in range(len(line) - n + 1)) for n in range(1, ORDER + 1)
    ]


def _met(ours: Grams, theirs: Grams) -> list[int]:
    """Runs of a length that the reference is too short for do not count against a text."""
    numbers = []
    for mine, other in zip(ours, theirs):
        both = sum(min(count, other[run]) for run, count in mine.items() if run in other)
        numbers += [mine.total() if other else 0, other.total(), both]
    return numbers
