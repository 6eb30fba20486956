"""Numbers with the interval they stand in: {"value", "low", "high", "n"}, 95 % everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.seeds import derive

Metric = dict[str, float]

RESAMPLES = 2000  # the 2.5 % points are then known to about 0.3 %
Z95 = 1.959963984540054
FEW = 20  # below this many documents, blocks of text are resampled instead


def metric(value: float, low: float, high: float, n: int) -> Metric:
    """A value, its 95 % interval, and how many independent things it was measured on."""
    return {"value": float(value), "low": float(low), "high": float(high), "n": int(n)}


def ratio_interval(
    numerators: npt.NDArray[Any],
    denominators: npt.NDArray[Any],
    seed: int,
    change: Callable[[float], float] = float,
) -> Metric:
    """Σ numerators / Σ denominators with a bootstrap interval: whole documents are drawn with replacement.

    Tokens of one document resemble each other, so documents (clusters), not tokens, are resampled (Davison &
    Hinkley 1997, §3.8); percentile interval of 2,000 resamples.

    Args:
        numerators: [documents], such as nats.
        denominators: [documents], such as bytes; their sum is above 0.
        change: applied to the ratio and to both ends (increasing), such as `exp`.
    """
    numerators = np.asarray(numerators, np.float64)
    denominators = np.asarray(denominators, np.float64)
    value = numerators.sum() / denominators.sum()
    count = len(numerators)
    ratios = _resampled(numerators, denominators, seed)
    low, high = np.percentile(ratios, (2.5, 97.5)) if count > 1 else (value, value)
    return metric(change(float(value)), change(float(low)), change(float(high)), count)


def _resampled(
    numerators: npt.NDArray[np.float64], denominators: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.float64]:
    """The ratio of each resample [RESAMPLES].

    For many documents the counts of a resample are drawn as independent Poisson(1) numbers, which is the same
    in the limit (Chamandy et al. 2012, "Estimating uncertainty for massive data streams") and needs no table
    of indexes.
    """
    generator = np.random.default_rng(derive(seed, "bootstrap"))
    count = len(numerators)
    both = np.stack([numerators, denominators])
    sums = []
    for start in range(0, RESAMPLES, 100):
        rows = min(100, RESAMPLES - start)
        if count <= 1000:
            weights = generator.multinomial(count, np.full(count, 1 / count), size=rows)
        else:
            weights = generator.poisson(1.0, size=(rows, count))
        sums.append(both @ weights.T.astype(np.float64))
    top, bottom = np.concatenate(sums, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: npt.NDArray[np.float64] = top / bottom
    return ratios[np.isfinite(ratios)] if np.isfinite(ratios).any() else np.array([top.sum() / bottom.sum()])


def share(successes: float, n: int) -> Metric:
    """A proportion with Wilson's score interval (Wilson 1927); n = 0 gives the value 0 in [0, 1]."""
    if n == 0:
        return metric(0.0, 0.0, 1.0, 0)
    p = successes / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    return metric(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n)


def shown(value: Metric, digits: int = 4, *, percent: bool = False) -> str:
    """'1.8312 (1.8011 to 1.8620, n = 41)', or as percentages."""
    scale, unit = (100, " %") if percent else (1, "")
    number, low, high = (f"{value[key] * scale:.{digits}f}" for key in ("value", "low", "high"))
    return f"{number}{unit} ({low} to {high}, n = {int(value['n']):,})"
