"""What is typed at a terminal: lines with a history in memory alone, and Ctrl-C that stops one thing."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ownlm.console.errors import Refused


def is_there() -> bool:
    """Whether somebody sits at a keyboard."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


@contextmanager
def history() -> Iterator[None]:
    """Inside it `ask` has arrow keys; what was typed is forgotten behind it and never written to a file."""
    try:
        import readline
    except ImportError:  # Windows, whose terminal has them
        yield
        return
    before = readline.get_current_history_length()
    try:
        yield
    finally:
        for number in range(readline.get_current_history_length() - 1, before - 1, -1):
            readline.remove_history_item(number)


def ask(prompt: str) -> str:
    """A line from the keyboard without its end.

    Raises:
        EOFError: Ctrl-D. KeyboardInterrupt: Ctrl-C. Refused: what came is not text in the terminal's encoding.
    """
    try:
        if sys.stdout.isatty():
            line = input(prompt)
        else:  # standard output holds results; `input` would put the prompt among them
            sys.stderr.write(prompt)
            sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                raise EOFError
        line.encode()  # a lenient decoder keeps strange bytes as halves of surrogate pairs
    except UnicodeError:
        encoding = (sys.stdin.encoding or "utf-8").upper()
        raise Refused(f"that was not {encoding}; nothing was read.", where="keyboard") from None
    return line.rstrip("\r\n")


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Inside it Ctrl-C only asks to stop; the function says whether it did. A second one interrupts at once.

    Work that is cut anywhere may leave a half-made step behind; whoever asks the function ends between two.
    """
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread
        yield lambda: False
        return
    pressed = False

    def note(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
