"""What is typed: where the prompt goes, what is forgotten, and Ctrl-C that stops one thing."""

from __future__ import annotations

import io
import signal
import sys
import threading

import pytest

from ownlm.console import keyboard
from ownlm.console.errors import Refused


def test_the_prompt_does_not_stand_among_results(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who?\r\nlast"))
    assert (keyboard.ask("you> "), keyboard.ask("you> ")) == ("Who?", "last")
    with pytest.raises(EOFError):
        keyboard.ask("you> ")
    assert capsys.readouterr() == ("", "you> " * 3)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_what_is_no_text_is_refused_and_the_next_line_is_read(monkeypatch, errors):
    stream = io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8", errors=errors)
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(Refused, match="keyboard: that was not UTF-8"):
        keyboard.ask("")


def test_what_was_typed_is_forgotten_and_what_was_there_before_stays():
    readline = pytest.importorskip("readline")
    readline.add_history("before")
    number = readline.get_current_history_length()
    with keyboard.history():
        readline.add_history("a secret")
        readline.add_history("another")
    assert readline.get_current_history_length() == number
    assert readline.get_history_item(number) == "before"
    readline.remove_history_item(number - 1)


def test_ctrl_c_asks_first_and_interrupts_then():
    before = signal.getsignal(signal.SIGINT)
    with keyboard.stoppable() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_nothing_is_changed():
    found = []

    def work():
        with keyboard.stoppable() as stopped:
            found.append(stopped())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_whether_somebody_is_there(monkeypatch):
    for stream in (None, io.StringIO("")):
        monkeypatch.setattr(sys, "stdin", stream)
        assert not keyboard.is_there()
