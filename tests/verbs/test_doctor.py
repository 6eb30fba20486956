"""`ownlm doctor`."""

import json

import pytest

import ownlm
from ownlm.cli import main
from ownlm.machine import cpu, examine, measure


@pytest.fixture
def quick(monkeypatch):
    """Measurements that take no time: 100 GFLOP/s times the size, 30 GB/s."""
    monkeypatch.setattr(measure, "matmul_rate", lambda dtype, n, **_: 1e11 * n)
    monkeypatch.setattr(measure, "read_bandwidth", lambda: 30e9)
    monkeypatch.setattr(cpu, "bf16_pays", lambda: False)
    monkeypatch.setattr(cpu, "available_memory", lambda: 6 * 10**9)
    monkeypatch.setattr(
        examine, "find_device", lambda: {"type": "cpu", "name": "Test CPU", "cpu": "Test CPU"}
    )


def test_the_page_shows_the_machine_the_measurements_and_marked_predictions(quick, capsys):
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    out = captured.out
    for expected in (
        "cpu: Test CPU",
        "6.0 GB available",
        "fp32 (bf16 would be emulated, slowly)",
        "matmul fp32, 256 × 256",
        "25,600 GFLOP/s",
        "30.0 GB/s",
        "documents",
        "predicted from what was just measured",
        "assumed 30%",
        "time (predicted)",
        "tokens/s (predicted)",
        "key-value cache",
        "124M",
        "8B",
    ):
        assert expected in out, expected
    eight = next(line for line in out.splitlines() if line.split()[:2] == ["8B", "int8"])
    assert "does not fit" in eight
    assert "ownlm quickstart" in captured.err
    assert "bf16, " not in out


def test_json_is_what_python_gets(quick, capsys):
    assert main(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = ownlm.doctor()
    assert capsys.readouterr().out == ""
    assert dict(found).keys() == printed.keys()
    assert found["predicted"] == printed["predicted"]
    assert found["measured"]["matmul"]["float32"]["512"] == 512e11
    assert found["cores"] == printed["cores"]
    assert printed["predicted"]["assumed"]["utilisation"] == 0.3


def test_bf16_is_measured_and_used_where_it_pays(quick, monkeypatch, capsys):
    monkeypatch.setattr(cpu, "bf16_pays", lambda: True)
    found = ownlm.doctor()
    assert found.dtypes == ["float32", "bfloat16"]
    assert set(found.measured["matmul"]) == {"float32", "bfloat16"}
    assert found.predicted["assumed"]["dtype"] == "bfloat16"


def test_sizes_that_take_too_long_are_left_out_and_named(quick, monkeypatch, capsys):
    monkeypatch.setattr(measure, "matmul_rate", lambda dtype, n, **_: 1e8)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "not measured: takes too long" in out
    assert "matmul fp32, 2048 × 2048" in out


def test_a_busy_machine_is_said(quick, monkeypatch, capsys):
    monkeypatch.setattr(examine.os, "getloadavg", lambda: (100.0, 1.0, 1.0), raising=False)
    assert main(["doctor"]) == 0
    assert "load 100.0" in capsys.readouterr().out
