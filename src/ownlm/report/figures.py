"""The charts of a run: what it learned over its steps, the learning rate, the speed."""

from __future__ import annotations

from collections.abc import Sequence

from ownlm.report.chart import Figure, Series, figure
from ownlm.report.log import Log, Point, series, smooth, thin

SMOOTHING = 40  # the moving average reaches a fortieth of the curve to each side


def figures(log: Log) -> list[Figure]:
    """The charts that the log has data for."""
    made = [_learning(log), *(_single(log, *row) for row in SINGLE)]
    return [chart for chart in made if chart is not None]


SINGLE = (
    ("learning_rate", "Learning rate", ""),
    ("tokens_per_second", "Speed", "tokens a second"),
)


def _learning(log: Log) -> Figure | None:
    """Training (smoothed, with the range of the steps behind each point) and validation."""
    key, unit = "bits_per_byte", "bits per byte"
    if not series(log.steps, key) and not series(log.validations, key):
        key, unit = "loss", "loss (nats a token)"
    train, validation = thin(series(log.steps, key)), thin(series(log.validations, key))
    checked = [(point.x, point.y) for point in validation]
    curves = [*_train_curves(train), Series("validation", "dots", checked, "validation")]
    words = [f"{unit.capitalize()} over steps."]
    if train:
        words.append(f"Training goes from {train[0].y:.3g} to {train[-1].y:.3g}.")
    if checked:
        words.append(f"Validation ends at {checked[-1][1]:.3g}.")
    return figure("learning", "What it learned", f"{unit}, over steps", " ".join(words), curves, height=340)


def _train_curves(points: Sequence[Point]) -> list[Series]:
    if len(points) < 20:  # too few to smooth: the steps themselves
        return [Series("training", "line", [(p.x, p.y) for p in points])]
    smoothed = smooth(points, max(1, len(points) // SMOOTHING))
    if any(point.low < point.high for point in points):
        edges = [(p.x, p.low) for p in points] + [(p.x, p.high) for p in reversed(points)]
        behind = Series("range of single steps", "band", edges)
    else:
        behind = Series("single steps", "faint", [(p.x, p.y) for p in points])
    return [behind, Series("training, smoothed", "line", smoothed)]


def _single(log: Log, key: str, title: str, unit: str) -> Figure | None:
    points = [(point.x, point.y) for point in thin(series(log.steps, key))]
    if not points:
        return None
    lowest, highest = min(y for _, y in points), max(y for _, y in points)
    words = f"{title} over steps: between {lowest:.3g} and {highest:.3g} {unit}".rstrip() + "."
    caption = f"{unit}, over steps" if unit else "over steps"
    curve = Series(unit or title.lower(), "line", points, "plain")
    return figure(key, title, caption, words, [curve], height=190, from_zero=True)
