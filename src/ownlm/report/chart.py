"""The geometry of line charts, in SVG units; the template draws it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Pairs = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One curve: `line` and `faint` are drawn as lines, `dots` as marked points, `band` as an area.

    A band's points run along its lower edge and back along its upper one. `color` is a class of the page's style;
    `across` is what stands before a point's place where the pointer shows it.
    """

    name: str
    kind: Literal["line", "faint", "dots", "band"]
    points: Pairs
    color: str = "train"
    across: str = "step"


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in SVG units, and what is written there."""

    place: float
    label: str


@dataclass(frozen=True)
class Shape:
    """A drawn series: an SVG path, and for dots their (x, y, text for the pointer)."""

    series: Series
    path: str
    dots: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Chart:
    """All that a template needs to draw one chart in one size."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    shapes: list[Shape]


@dataclass(frozen=True)
class Figure:
    """One chart in two sizes (for wide and narrow windows) with its words."""

    identity: str
    title: str
    caption: str
    description: str
    series: list[Series]
    wide: Chart
    narrow: Chart


def figure(
    identity: str,
    title: str,
    caption: str,
    description: str,
    curves: Sequence[Series],
    *,
    height: int = 300,
    from_zero: bool = False,
) -> Figure | None:
    """A figure, or None when there is nothing to draw.

    Args:
        identity: its name inside the page.
        title: heading.
        caption: what the axes count.
        description: what is seen, in a sentence, for people who cannot see it.
        curves: at least one point in all of them together.
        height: of the wide form, in SVG units.
        from_zero: whether the vertical axis starts at 0.
    """
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return None
    wide = _chart(drawn, 760, height, from_zero, x_count=8)
    narrow = _chart(drawn, 360, min(height, 240), from_zero, x_count=4)
    return Figure(identity, title, caption, description, drawn, wide, narrow)


def _chart(curves: Sequence[Series], width: int, height: int, from_zero: bool, x_count: int) -> Chart:
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    x_values = ticks(min(xs), max(xs), x_count)
    y_values = ticks(0.0 if from_zero else min(ys), max(ys), max(2, height // 50))
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-9)
    y_low, y_high = min(y_values[0], *ys), max(y_values[-1], *ys)
    y_high = max(y_high, y_low + 1e-9)
    labels = labelled(y_values)
    left, right = max(14 + 7.2 * max(map(len, labels)), 40.0), width - 14.0
    top, bottom = 10.0, height - 28.0

    def across(x: float) -> float:
        if x_high - x_low <= 1e-9:  # a single step stands in the middle
            return (left + right) / 2
        return round(left + (x - x_low) / (x_high - x_low) * (right - left), 1)

    def down(y: float) -> float:
        return round(bottom - (y - y_low) / (y_high - y_low) * (bottom - top), 1)

    shapes = []
    for curve in curves:
        places = [(across(x), down(y)) for x, y in curve.points]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places) + ("Z" if curve.kind == "band" else "")
        dots = []
        if curve.kind == "dots" or len(places) == 1:
            dots = [
                (*place, f"{curve.across} {x:,.0f}: {y:.4g}") for place, (x, y) in zip(places, curve.points)
            ]
        shapes.append(Shape(curve, path, dots))
    inside = [value for value in x_values if x_low <= value <= x_high] or [x_low]
    x_ticks = [Tick(across(value), label) for value, label in zip(inside, labelled(inside))]
    y_ticks = [Tick(down(value), label) for value, label in zip(y_values, labels)]
    return Chart(width, height, left, right, top, bottom, x_ticks, y_ticks, shapes)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values (1, 2 or 5 times a power of ten apart) that enclose low to high."""
    if high <= low:
        low, high = low - abs(low) * 0.05 - 1e-9, high + abs(high) * 0.05 + 1e-9
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def labelled(values: Sequence[float]) -> list[str]:
    """Numbers as an axis shows them: as many decimals as they need to differ, thousands as k and M."""
    largest = max(map(abs, values), default=0.0)
    if largest >= 10_000:
        unit, scale = ("M", 1e6) if largest >= 2e6 else ("k", 1e3)
        return [_short(value / scale) + (unit if value else "") for value in values]
    if 0 < largest < 0.001:
        return [f"{value:.2g}" for value in values]
    step = min((abs(b - a) for a, b in itertools.pairwise(values)), default=largest or 1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return [f"{value:,.{min(decimals, 9)}f}" for value in values]


def _short(value: float) -> str:
    return f"{value:.6g}"
