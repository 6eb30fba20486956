"""The geometry of charts."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.report.chart import Series, figure, labelled, ticks

VALUES = st.floats(-1e9, 1e9).map(lambda value: round(value, 4))


def draw(points: list[tuple[float, float]], kind: str = "line"):
    return figure("x", "Title", "caption", "words", [Series("s", kind, points)])  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(0, 1e7), VALUES), min_size=1, max_size=50))
def test_everything_lies_inside_the_picture(points):
    made = draw(points, "dots")
    assert made is not None
    for chart in (made.wide, made.narrow):
        for x, y, _ in chart.shapes[0].dots:
            assert chart.left - 0.1 <= x <= chart.right + 0.1
            assert chart.top - 0.1 <= y <= chart.bottom + 0.1
        for tick in chart.x_ticks:
            assert 0 <= tick.place <= chart.width
        for tick in chart.y_ticks:
            assert chart.top - 0.1 <= tick.place <= chart.bottom + 0.1


def test_higher_values_are_higher_and_later_steps_further_right():
    made = draw([(1, 5.0), (2, 3.0)], "dots")
    assert made is not None
    (x1, y1, _), (x2, y2, words) = made.wide.shapes[0].dots
    assert x1 < x2
    assert y1 < y2  # SVG counts downwards
    assert words == "step 2: 3"


def test_one_step_is_a_dot_and_nothing_is_no_figure():
    made = draw([(7, 2.5)])
    assert made is not None
    assert len(made.wide.shapes[0].dots) == 1
    assert [tick.label for tick in made.wide.x_ticks] == ["7"]
    assert draw([]) is None


@given(VALUES, VALUES, st.integers(2, 10))
def test_ticks_are_even_and_enclose(first, second, count):
    low, high = min(first, second), max(first, second)
    if high - low < 1e-3:
        return
    values = ticks(low, high, count)
    slack = (high - low) * 1e-6
    assert values[0] <= low + slack
    assert values[-1] >= high - slack
    assert 2 <= len(values) <= count + 3
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert max(steps) - min(steps) <= 1e-6 * max(map(abs, steps))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([1.15, 1.2], ["1.15", "1.20"]),
        ([0, 500, 1000], ["0", "500", "1,000"]),
        ([0, 20_000, 40_000], ["0", "20k", "40k"]),
        ([0, 5e6, 1e7], ["0", "5M", "10M"]),
        ([0.0, 0.0002, 0.0004], ["0", "0.0002", "0.0004"]),
    ],
)
def test_labels_are_short_and_differ(values, labels):
    assert labelled(values) == labels


@given(st.floats(1e-6, 1e9), st.integers(2, 9))
def test_tick_labels_never_repeat(high, count):
    values = ticks(0.0, high, count)
    labels = labelled(values)
    assert len(set(labels)) == len(values)
    assert not any(math.isnan(value) for value in values)
