"""Measuring."""

import pytest
import torch

from ownlm.machine import measure


def test_the_rate_is_two_n_cubed_over_the_best_time(monkeypatch):
    monkeypatch.setattr(measure, "_best_time", lambda work, seconds, device: 0.5)
    group = round(2e7 / 64**3)
    assert measure.matmul_rate("float32", 64) == pytest.approx(2 * 64**3 * group / 0.5)


@pytest.mark.parametrize("dtype", ["float32", torch.float32])
def test_a_real_rate_is_plausible(dtype):
    rate = measure.matmul_rate(dtype, 64, seconds=0.02)
    assert 1e6 < rate < 1e15


def test_bandwidth_counts_the_bytes_of_the_matrix(monkeypatch):
    monkeypatch.setattr(measure, "_best_time", lambda work, seconds, device: 0.25)
    assert measure.read_bandwidth(size=2**20) == pytest.approx(2**20 / 0.25)


def test_bandwidth_takes_no_more_than_a_quarter_of_the_memory(monkeypatch):
    monkeypatch.setattr(measure, "available_memory", lambda: 2**22)
    monkeypatch.setattr(measure, "_best_time", lambda work, seconds, device: 1.0)
    assert measure.read_bandwidth(size=2**30) == 2**20


def test_the_best_of_all_repetitions_counts_and_the_first_does_not(monkeypatch):
    now = [0.0]
    durations = iter([9.0, 0.3, 0.1, 0.2, 5.0])
    calls = []

    def work() -> None:
        now[0] += next(durations)
        calls.append(1)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    assert measure._best_time(work, 0.5, "cpu") == pytest.approx(0.1)
    assert len(calls) == 4
