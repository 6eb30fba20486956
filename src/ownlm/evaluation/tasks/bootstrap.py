"""Intervals of figures that are made of sums over rows: rows are drawn again, with replacement, 1,000 times.

Corpus figures such as BLEU are no means over rows. What decides them are sums over rows (their sufficient
statistics), so each resample adds up the statistics of the rows it drew, as the bootstrap of sacrebleu does
(Koehn 2004, "Statistical significance tests for machine translation evaluation", §3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ownlm.evaluation.metrics import Metric, metric, share
from ownlm.seeds import derive

SAMPLES = 1000
TINY = 1e-9  # what is left of 0 after sums in other orders
DRAWN_AT_ONCE = 2_000_000  # rows times resamples in memory

Floats = npt.NDArray[np.float64]


class Statistics(Protocol):
    """What rows add to the sums that decide a figure."""

    def sums(self, weights: Floats) -> Floats:
        """How often each row counts [samples, rows] → sums [samples, statistics]."""


@dataclass(frozen=True)
class Table:
    """Statistics as numbers: `rows` is [rows, statistics]."""

    rows: Floats

    def sums(self, weights: Floats) -> Floats:
        """See `Statistics`."""
        return weights @ self.rows


class Cells:
    """Each row counts one in some of many cells, such as those of a confusion table.

    Args:
        codes: [rows, cells of a row], -1 for none.
        number: of cells.
    """

    def __init__(self, codes: npt.NDArray[np.int64], number: int) -> None:
        row, column = np.nonzero(codes >= 0)
        cell = codes[row, column]
        order = np.argsort(cell, kind="stable")
        self._row = row[order]
        self._filled, self._start = np.unique(cell[order], return_index=True)
        self._number = number

    def sums(self, weights: Floats) -> Floats:
        """See `Statistics`."""
        counted = np.zeros((len(weights), self._number))
        if len(self._row):
            counted[:, self._filled] = np.add.reduceat(weights[:, self._row], self._start, axis=1)
        return counted


@dataclass(frozen=True)
class Figure:
    """A figure of a task.

    Attributes:
        name: a key of `names.FIGURES`.
        statistics: what its rows add up.
        score: sums [samples, statistics] → values [samples].
        rows: how many rows it is about.
        most: its largest possible value.
    """

    name: str
    statistics: Statistics
    score: Callable[[Floats], Floats]
    rows: int
    most: float = 1.0


def mean(name: str, values: Sequence[float] | Floats, most: float = 1.0) -> Figure:
    """The mean of a value a row."""
    table = np.asarray(values, np.float64).reshape(-1, 1)
    return Figure(name, Table(np.hstack([table, np.ones_like(table)])), ratio, len(table), most)


def mean_where(name: str, values: Sequence[float] | Floats, counts: Sequence[bool]) -> Figure:
    """The mean over some of the rows."""
    weights = np.asarray(counts, np.float64)
    table = np.stack([np.asarray(values, np.float64) * weights, weights], axis=1)
    return Figure(name, Table(table), ratio, int(weights.sum()))


def ratio(sums: Floats) -> Floats:
    """First sum / second sum; NaN where the second is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: Floats = sums[:, 0] / sums[:, 1]
    return quotient


def metrics(figures: Sequence[Figure], rows: int, seed: int) -> dict[str, Metric]:
    """Each figure with its 95 % interval (percentiles of the resamples).

    For a single row, and where all resamples are 0 or all are 100 %, the bootstrap knows no interval: then it is
    Wilson's, of a share of as many rows.
    """
    values = _values(figures, np.ones((1, rows)))
    resampled = _resampled(figures, rows, seed)
    return {
        figure.name: _with_interval(figure, float(value[0]), samples)
        for figure, value, samples in zip(figures, values, resampled)
    }


def _with_interval(figure: Figure, value: float, samples: Floats) -> Metric:
    samples = samples[np.isfinite(samples)]
    if figure.rows < 2 or len(samples) == 0 or _all_or_nothing(samples / figure.most):
        plain = share(value / figure.most * figure.rows, figure.rows)
        return metric(value, plain["low"] * figure.most, plain["high"] * figure.most, figure.rows)
    low, high = np.percentile(samples, (2.5, 97.5))
    return metric(value, min(low, value), max(high, value), figure.rows)


def _all_or_nothing(shares: Floats) -> bool:
    return bool((shares < TINY).all() or (shares > 1 - TINY).all())


def differences(
    a: Sequence[Figure], b: Sequence[Figure], rows: int, seed: int
) -> dict[str, dict[str, float]]:
    """a - b of each figure both have, on the same resamples of the same rows.

    Returns:
        Name → value, low, high, n, and p: how often a difference at least as large arises when there is none. The
        resamples are shifted to a mean of 0 for that (two-sided; Riezler & Maxwell 2005, §4; as sacrebleu). Where
        that says less than the signs of so few rows can say, 2^(1 - rows), it is that.
    """
    others = {figure.name: figure for figure in b}
    ours = [figure for figure in a if figure.name in others]
    pairs = [*ours, *(others[figure.name] for figure in ours)]
    values = np.stack(_values(pairs, np.ones((1, rows))))[:, 0] if pairs else np.zeros(0)
    resampled = _resampled(pairs, rows, seed)
    found = {}
    for number, figure in enumerate(ours):
        value = float(values[number] - values[number + len(ours)])
        samples = resampled[number] - resampled[number + len(ours)]
        samples = samples[np.isfinite(samples)]
        if len(samples) == 0:
            continue
        low, high = np.percentile(samples, (2.5, 97.5))
        as_far = np.abs(samples - samples.mean()) >= abs(value) - TINY
        p = max((int(as_far.sum()) + 1) / (len(samples) + 1), 2.0 ** (1 - min(figure.rows, SAMPLES)))
        found[figure.name] = metric(value, min(low, value), max(high, value), figure.rows) | {"p": p}
    return found


def _values(figures: Sequence[Figure], weights: Floats) -> list[Floats]:
    return [figure.score(figure.statistics.sums(weights)) for figure in figures]


def _resampled(figures: Sequence[Figure], rows: int, seed: int) -> list[Floats]:
    """The value of each figure in each resample, all figures on the same ones: [figures][SAMPLES]."""
    if not figures:
        return []
    parts = [_values(figures, weights) for weights in _draws(rows, seed)]
    return [np.concatenate(values) for values in zip(*parts)]


def _draws(rows: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn in each resample, some resamples at a time: [some, rows]."""
    generator = np.random.default_rng(derive(seed, "bootstrap"))
    at_once = max(1, min(SAMPLES, DRAWN_AT_ONCE // rows))
    for start in range(0, SAMPLES, at_once):
        number = min(at_once, SAMPLES - start)
        drawn = generator.integers(0, rows, (number, rows))
        drawn += np.arange(number)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=number * rows)
        yield counts.reshape(number, rows).astype(np.float64)
