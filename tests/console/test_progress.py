"""The progress line."""

import sys

import pytest

from ownlm.console import output, progress
from ownlm.console.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_bytes_show_share_rate_and_time_left(clock):
    bar = Progress("reading", total=100e6)
    clock[0] = 2.0
    bar.update(20e6)
    assert bar.text("a.txt") == "reading  20%  20.0 MB  10.0 MB/s  8.0 s left  a.txt"


def test_other_units_and_an_unknown_total(clock):
    bar = Progress("documents", unit="documents")
    clock[0] = 1.0
    bar.update(5000)
    assert bar.text() == "documents  5,000 documents  5,000/s"


def test_a_log_gets_a_plain_line_now_and_then(clock, capsys):
    with Progress("reading", total=1000, unit="lines") as bar:
        for second in range(1, 61):
            clock[0] = float(second)
            bar.update(1)
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 60 // int(progress.LOG_SECONDS)
    assert "\r" not in err
    assert "\x1b" not in err


def test_quiet_shows_nothing(clock, capsys):
    with output.quiet(), Progress("reading", total=10) as bar:
        clock[0] = 100.0
        bar.update(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_one_line_in_place_that_is_removed(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("reading", total=10) as bar:
        clock[0] = 1.0
        bar.update(1)
    err = capsys.readouterr().err
    assert err.startswith("\r\x1b[2Kreading")
    assert err.endswith("\r\x1b[2K")
    assert "\n" not in err


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with Progress("reading", total=10) as bar:
        clock[0] = 100.0
        bar.update(1)
    err = capsys.readouterr().err
    assert err.startswith("reading")
    assert "\x1b" not in err


def test_going_past_the_total_stays_sane(clock):
    bar = Progress("reading", total=10)
    clock[0] = 1.0
    bar.update(20)
    assert "100%" in bar.text()
    assert "0.0 s left" in bar.text()
