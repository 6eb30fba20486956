"""Where words go: results to stdout, everything else to stderr, no colour or bars off a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

LOG_WIDTH = 200
NARROW = 60  # columns
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_console: Console | None = None
_quiet = False
_from_cli = False
_with_next = True
_lossy_said = False


def console() -> Console:
    """The rich console on stderr (made late: rich costs 30 ms, `--help` must stay quick)."""
    global _console
    if _console is None or _console.file is not sys.stderr:
        from rich.console import Console

        class WordsConsole(Console):
            """A console that goes on when nobody reads its words any more."""

            def on_broken_pipe(self) -> None:
                forget_reader(sys.stderr)

        # Off a terminal rich would wrap at 80 columns: paths in logs must stay in one piece.
        width = None if sys.stderr.isatty() else LOG_WIDTH
        _console = WordsConsole(
            file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty(), width=width
        )
    return _console


def forget_reader(stream: TextIO) -> None:
    """Let what is still written to a pipe that its reader has closed go nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stand-in without a descriptor, or a closed one
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def printable(text: str) -> str:
    """Words for a terminal: a file name may hold control characters, which would act on it."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def say(text: str = "", style: str | None = None) -> None:
    """One line for the person, on stderr; silent with `--quiet`."""
    if not is_quiet():
        console().print(printable(text), style=style, markup=False)


def warn(text: str) -> None:
    """A line that must be seen, also with `--quiet`."""
    if follows():
        return
    console().print(f"warning: {printable(text)}", style="yellow", markup=False)


def result(text: str, end: str = "\n") -> None:
    """A result, on stdout, flushed at once so that pipes and readers see it.

    Characters that the terminal's encoding lacks are printed as `?`, which is said once.
    """
    global _lossy_said
    if follows():
        return
    encoding = sys.stdout.encoding or "utf-8"
    if not _fits(text, encoding):
        text = text.encode(encoding, "replace").decode(encoding)
        if not _lossy_said:
            _lossy_said = True
            warn(f"this output is {encoding}: other characters print as ?. Try: PYTHONIOENCODING=utf-8")
    sys.stdout.write(text + end)
    sys.stdout.flush()


def result_json(value: Any) -> None:
    """A structured result on stdout as JSON (`--json`); escaped where the encoding lacks characters."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    if not _fits(text, sys.stdout.encoding or "utf-8"):
        text = json.dumps(value, indent=2, default=str)
    result(text)


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[object]], *, numeric: Sequence[int] = ()
) -> None:
    """A table on stderr: rounded lines on a terminal, aligned plain columns in a log.

    Args:
        title: a line above it.
        headers: column names.
        rows: cells, converted with `str`.
        numeric: indexes of the columns that are aligned to the right.
    """
    if not is_quiet():
        for part in _shown(console().width, title, headers, rows, numeric):
            console().print(part, markup=False)


def result_table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[object]], *, numeric: Sequence[int] = ()
) -> None:
    """Like `table`, but the table is the result: it goes to stdout, without colour, also with `--quiet`."""
    import io
    import shutil

    from rich.console import Console

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else LOG_WIDTH
    page = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    for part in _shown(width, title, headers, rows, numeric):
        page.print(part, markup=False)
    lines = (line.rstrip() for line in page.file.getvalue().splitlines())  # type: ignore[attr-defined]
    result("\n".join(lines).rstrip("\n"))


def _shown(
    width: int, title: str, headers: Sequence[str], rows: Sequence[Sequence[object]], numeric: Sequence[int]
) -> Iterator[Any]:
    """A table, or where it would break words into pieces, its cells line by line."""
    if width >= NARROW:
        yield _table(title, headers, rows, numeric)
        return
    yield title
    for row in rows:
        cells = [printable(str(cell)).replace("\n", "\n    ") for cell in row]
        yield cells[0]
        yield from (
            f"  {f'{name}: ' if name else ''}{cell}" for name, cell in zip(headers[1:], cells[1:]) if cell
        )


def _table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[object]], numeric: Sequence[int]
) -> Any:
    from rich import box
    from rich.table import Table

    shown = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_header=any(headers),
    )
    for index, header in enumerate(headers):
        shown.add_column(header, justify="right" if index in numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_plain(cell) for cell in row))
    return shown


def _plain(cell: object) -> Any:
    from rich.text import Text

    return Text(printable(str(cell)))


def next_commands(*commands: str) -> None:
    """The closing lines of every verb: what to type next, with real paths."""
    if not _with_next:
        return
    say()
    say("Next:", style="bold")
    for command in commands:
        say(f"  {command}")


@contextmanager
def no_next_commands() -> Iterator[None]:
    """Inside it `next_commands` is silent: for a verb that calls other verbs."""
    global _with_next
    before, _with_next = _with_next, False
    try:
        yield
    finally:
        _with_next = before


@contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Inside it `say` and `table` are silent (warnings are not)."""
    global _quiet
    before, _quiet = _quiet, on or _quiet
    try:
        yield
    finally:
        _quiet = before


def is_quiet() -> bool:
    """Whether `--quiet` is on, or the words are left to another process."""
    return _quiet or follows()


def follows() -> bool:
    """Whether torchrun started several processes and this is not the first, which alone speaks for them."""
    return os.environ.get("RANK", "0") != "0" and os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def command_line() -> Iterator[None]:
    """Inside it a verb was typed in a shell and prints its result; Python gets it back instead."""
    global _from_cli
    before, _from_cli = _from_cli, True
    try:
        yield
    finally:
        _from_cli = before


def from_cli() -> bool:
    """Whether the verb was typed in a shell."""
    return _from_cli


def human_bytes(count: float) -> str:
    """1234567 -> '1.2 MB' (decimal units, as disks and networks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_count(count: float) -> str:
    """10_312_704 -> '10.3M': sizes of models and numbers of tokens."""
    if abs(count) < 1000:
        return f"{count:.0f}"
    for unit in ("k", "M", "B"):
        count /= 1000
        if abs(count) < 999.5:  # above it three digits would read 1e+03
            return f"{count:.3g}{unit}"
    return f"{count / 1000:.3g}T"


def human_seconds(seconds: float) -> str:
    """3725 -> '1 h 2 min'."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    hours = whole / 3600
    return f"{whole // 3600} h {whole % 3600 // 60} min" if hours < 48 else f"{hours / 24:.1f} days"
