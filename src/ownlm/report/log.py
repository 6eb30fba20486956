"""`log.jsonl` of a run, read once and thinned so that a page stays small however long the run was."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_POINTS = 600


@dataclass
class Log:
    """What a log holds, by kind of line.

    Lines that are no JSON objects are counted in `unreadable`; steps whose loss is no finite number stand
    in `not_finite`.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    not_finite: list[int] = field(default_factory=list)
    unreadable: int = 0


@dataclass(frozen=True)
class Point:
    """Neighbouring steps as one point: their mean place and value, and the range of the values."""

    x: float
    y: float
    low: float
    high: float


def read_log(path: Path) -> Log:
    """Read a log; a missing file is an empty log."""
    log = Log()
    kinds = {"step": log.steps, "validation": log.validations, "sample": log.samples}
    if not path.is_file():
        return log
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                log.unreadable += bool(line.strip())
                continue
            if not isinstance(entry, dict):
                log.unreadable += 1
                continue
            kind = entry.get("kind")
            if kind in kinds:
                kinds[kind].append(entry)
            if kind == "step" and number(entry.get("loss")) is None:
                log.not_finite.append(int(number(entry.get("step")) or 0))
    return log


def number(value: object) -> float | None:
    """A finite number, or None for everything else (NaN, infinity, text, nothing, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def records(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The JSON objects in a list that a file should have under `key`; none when it has something else."""
    listed = content.get(key)
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def series(entries: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of the entries that have both as finite numbers."""
    pairs = ((number(entry.get("step")), number(entry.get(key))) for entry in entries)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def thin(points: Sequence[tuple[float, float]], most: int = MAX_POINTS) -> list[Point]:
    """At most `most` points: the sequence is cut into equal buckets, each becomes its mean and range."""
    count = min(len(points), most)
    edges = [round(i * len(points) / count) for i in range(count + 1)] if count else []
    thinned = []
    for start, stop in itertools.pairwise(edges):
        bucket = points[start:stop]
        ys = [y for _, y in bucket]
        x = sum(x for x, _ in bucket) / len(bucket)
        thinned.append(Point(x, sum(ys) / len(ys), min(ys), max(ys)))
    return thinned


def smooth(points: Sequence[Point], window: int) -> list[tuple[float, float]]:
    """The moving average over `window` points on both sides (at the ends over as many as both have)."""
    sums = [0.0]
    for point in points:
        sums.append(sums[-1] + point.y)
    smoothed = []
    for i, point in enumerate(points):
        reach = min(window, i, len(points) - 1 - i)
        smoothed.append((point.x, (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1)))
    return smoothed
