"""How long rows are: quantiles and a histogram whose steps are 1, 2, 5, 10, …"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

BAR = 30  # characters of the longest bar


def summary(lengths: Sequence[int]) -> dict[str, Any]:
    """Median, 95th percentile, longest and histogram [[from, below, rows], …] of lengths; {} without rows."""
    if not lengths:
        return {}
    ordered = sorted(lengths)
    return {
        "median": _quantile(ordered, 0.5),
        "p95": _quantile(ordered, 0.95),
        "longest": ordered[-1],
        "total": sum(ordered),
        "histogram": _histogram(ordered),
    }


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _histogram(ordered: Sequence[int]) -> list[list[int]]:
    edges = [0, 1]
    while edges[-1] <= ordered[-1]:
        power = 10 ** (len(str(edges[-1])) - 1)
        edges.append(edges[-1] // power * power * 2 if edges[-1] // power != 2 else 5 * power)
    below = [bisect_left(ordered, edge) for edge in edges]
    bars = [
        [low, high, upto - before] for (low, high), (before, upto) in zip(pairwise(edges), pairwise(below))
    ]
    filled = [index for index, bar in enumerate(bars) if bar[2]]
    return bars[filled[0] : filled[-1] + 1]


def bars(histogram: Sequence[Sequence[int]]) -> list[tuple[str, str, str]]:
    """Rows (range, number, bar) of a table."""
    most = max(count for *_, count in histogram)
    return [
        (
            f"{low:,}–{high - 1:,}" if high - low > 1 else f"{low:,}",
            f"{count:,}",
            "█" * max(bool(count), round(BAR * count / most)),
        )
        for low, high, count in histogram
    ]
