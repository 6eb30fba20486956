"""Progress on stderr: one live line on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from ownlm.console import output

LOG_SECONDS = 15.0  # off a terminal: often enough to see life, rare enough not to fill a log
LIVE_SECONDS = 0.1


class Progress:
    """A counter with rate and remaining time, used as a context manager.

    Args:
        label: what is being done ("reading").
        total: the final count, or None when unknown.
        unit: 'bytes' prints MB/s; any other word is printed after the counts.
    """

    def __init__(self, label: str, total: float | None = None, unit: str = "bytes") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.start = time.monotonic()
        self._shown = self.start
        movable = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._live = movable and not output.is_quiet()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def update(self, amount: float = 0, *, note: str = "") -> None:
        """Add `amount` to the count; `note` is appended to the line."""
        self.done += amount
        now = time.monotonic()
        if now - self._shown < (LIVE_SECONDS if self._live else LOG_SECONDS):
            return
        self._shown = now
        self.line(self.text(note))

    def text(self, note: str = "") -> str:
        """The line as it is shown: share, rate, remaining time."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        rate = self.done / seconds
        parts = [self.label]
        if self.total:
            parts.append(f"{min(self.done / self.total, 1):.0%}")
        if self.unit == "bytes":
            parts += [output.human_bytes(self.done), f"{rate / 1e6:.1f} MB/s"]
        else:
            parts += [f"{self.done:,.0f} {self.unit}", f"{rate:,.0f}/s"]
        if self.total and rate > 0:
            parts.append(f"{output.human_seconds(max(self.total - self.done, 0) / rate)} left")
        if note:
            parts.append(note)
        return "  ".join(parts)

    def line(self, text: str) -> None:
        """Show a line: in place on a terminal, appended to a log elsewhere."""
        if output.is_quiet():
            return
        if self._live:
            width = output.console().width - 1
            sys.stderr.write("\r\x1b[2K" + output.printable(text)[:width])
            sys.stderr.flush()
        else:
            output.say(text)

    def clear(self) -> None:
        """Remove the live line so that the next message starts on a clean one."""
        if self._live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
