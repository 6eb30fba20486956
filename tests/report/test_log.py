"""Reading and thinning logs."""

import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ownlm.report.log import read_log, series, smooth, thin


def test_kinds_are_told_apart_and_the_unreadable_is_counted(tmp_path: Path):
    lines = [
        {"kind": "step", "step": 1, "loss": 5.5},
        {"kind": "step", "step": 2, "loss": float("nan")},
        {"kind": "step", "step": 3, "loss": None},
        {"kind": "validation", "step": 3, "loss": 5.0},
        {"kind": "sample", "step": 3, "text": "春眠"},
        {"kind": "checkpoint", "step": 3},
        [1, 2],
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n\n{"kind": "step", "st'
    (tmp_path / "log.jsonl").write_text(text)
    log = read_log(tmp_path / "log.jsonl")
    assert [len(log.steps), len(log.validations), len(log.samples)] == [3, 1, 1]
    assert log.not_finite == [2, 3]
    assert log.unreadable == 2
    assert series(log.steps, "loss") == [(1.0, 5.5)]


def test_a_missing_log_is_empty(tmp_path: Path):
    assert read_log(tmp_path / "log.jsonl").steps == []


@given(st.lists(st.floats(-1e6, 1e6), max_size=2000), st.integers(1, 600))
def test_thinning_keeps_range_order_and_mean(values: list[float], most: int):
    points = [(float(i), value) for i, value in enumerate(values)]
    thinned = thin(points, most)
    assert len(thinned) == min(len(points), most)
    if values:
        assert min(p.low for p in thinned) == min(values)
        assert max(p.high for p in thinned) == max(values)
        assert [p.x for p in thinned] == sorted(p.x for p in thinned)
        tolerance = 1e-6
        assert all(p.low - tolerance <= p.y <= p.high + tolerance for p in thinned)


def test_smoothing_leaves_a_line_alone_and_calms_noise():
    line = thin([(float(i), 2.0 * i) for i in range(50)])
    assert all(math.isclose(y, 2.0 * x, abs_tol=1e-9) for x, y in smooth(line, 5))
    noise = smooth(thin([(float(i), (-1.0) ** i) for i in range(100)]), 10)
    assert max(abs(y) for _, y in noise[10:-10]) < 0.1
