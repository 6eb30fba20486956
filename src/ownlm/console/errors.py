"""Errors that say what, where, why and what to do (DESIGN: a message is never a bare traceback).

Exit codes: 0 done, 1 something broke, 2 wrong arguments or settings file,
3 data or a plan was refused, 130 interrupted.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

EXIT_BROKE, EXIT_USAGE, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 3, 130


class OwnlmError(Exception):
    """Something broke and a person can do something about it.

    Args:
        what: one sentence: what happened.
        where: a file, `file:line`, or setting name; printed in front.
        why: one sentence: the rule or cause behind it.
        do: the command (or edit) that helps, ready to be typed.
    """

    exit_code = EXIT_BROKE

    def __init__(self, what: str, *, where: object = None, why: str = "", do: str = "") -> None:
        self.what, self.where, self.why, self.do = what, where, why, do
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where is not None else self.what
        if self.why:
            text += f" {self.why}"
        if self.do:
            text += f"\nTry: {self.do}"
        return text


class UsageError(OwnlmError):
    """Wrong arguments, or a wrong settings file (exit code 2)."""

    exit_code = EXIT_USAGE


class Refused(OwnlmError):
    """Data or a plan was looked at and refused (exit code 3)."""

    exit_code = EXIT_REFUSED


class Interrupted(OwnlmError):
    """The user pressed Ctrl-C; the message says what was kept and how to go on (exit code 130)."""

    exit_code = EXIT_INTERRUPTED


class SaidElsewhere(OwnlmError):
    """The first of several processes has said why the run ended; this one ends with the same exit code."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(f"the first process has ended with exit code {exit_code}; it says why.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""


def is_disk_full(error: BaseException) -> bool:
    """Whether no space is left: by errno, or in the words of numpy's `tofile` and of libraries in Rust."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)
    return (
        "No space left on device" in text or re.fullmatch(r"\d+ requested and \d+ written", text) is not None
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; torch has no class of its own for that on a CPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = ("can't allocate memory", "out of memory", "bad_alloc")
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in said)
    )


def missing_extra(package: str, extra: str, purpose: str) -> UsageError:
    """The error for an optional dependency that is not installed."""
    return UsageError(
        f"{purpose} needs the package {package}, which is not installed.",
        do=f"pip install 'ownlm[{extra}]'",
    )
