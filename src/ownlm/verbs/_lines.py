"""What the verbs that work on many texts agree on: texts line by line in batches, results in the same order."""

from __future__ import annotations

import json as json_format
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from ownlm.console import output as out
from ownlm.console.errors import Interrupted, OwnlmError, Refused, UsageError
from ownlm.verbs._arguments import exists, looks_like_path, read_file

BATCH = 64  # texts that are computed together; their results appear together
JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Line:
    """A text, where it stands, and whether it was typed: then its result may have several lines."""

    text: str
    where: str
    typed: bool = False


def lines_of(words: Sequence[str], columns: Sequence[str], *, files_whole: bool = False) -> Iterator[Line]:
    """The texts that arguments mean, in order: `@file` and `-` hold one a line, everything else is text.

    Files are read at once and looked at as a whole, standard input as its lines come.

    Args:
        words: of the command; none: standard input.
        columns: keys of a JSON line that hold its text, the first that is there counts.
        files_whole: a file that exists is one text as a whole.

    Raises:
        UsageError: no such file. Refused: bytes that are not UTF-8, a JSON line without a text; with `place:line`.
    """
    return chain.from_iterable([_of_word(word, columns, files_whole) for word in words or ["-"]])


def _of_word(word: str, columns: Sequence[str], files_whole: bool) -> Iterable[Line]:
    if word == "-":
        return _of_stdin()
    if word.startswith("@") and len(word) > 1:
        return _of_file(Path(word[1:]), columns)
    if files_whole and exists(word):
        return [Line(read_file(Path(word)), word, typed=True)]
    if files_whole and looks_like_path(word):
        raise UsageError("no such file.", where=word, do="a path that exists")
    return [Line(word, "TEXT", typed=True)]


def _of_stdin() -> Iterator[Line]:
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("there is no standard input to read.", where="-")
    if sys.stdin.isatty():
        out.say("Reading from the keyboard, one text a line; end with Ctrl-D (Windows: Ctrl-Z, Enter).")
    lines: Any = getattr(sys.stdin, "buffer", sys.stdin)
    for number, line in enumerate(lines, 1):
        where = f"standard input:{number}"
        try:
            text = line if isinstance(line, str) else line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise Refused(
                f"byte {error.start + 1:,} of the line is not UTF-8.",
                where=where,
                why="Other encodings are recognised in files alone.",
                do="@FILE in place of -",
            ) from None
        yield Line(text.rstrip("\r\n"), where)


def _of_file(path: Path, columns: Sequence[str]) -> list[Line]:
    """All of a file is looked at before anything is computed of it."""
    lines = read_file(path).replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    if path.suffix not in JSON_LINES:
        return [Line(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    return [Line(_text_of(line, f"{path}:{number}", columns), f"{path}:{number}") for number, line in filled]


def _text_of(line: str, where: str, columns: Sequence[str]) -> str:
    """The text of a JSON line: a string, or an object that holds one."""
    try:
        row = json_format.loads(line)
    except ValueError as error:
        raise Refused(f"not a JSON line: {error}.", where=where, do=f'{{"{columns[0]}": "…"}}') from None
    found = next((row[name] for name in columns if name in row), None) if isinstance(row, dict) else row
    if not isinstance(found, str):
        has = f"It has {', '.join(map(str, row))[:100]}." if isinstance(row, dict) else ""
        names = " or ".join(f'"{name}"' for name in columns)
        raise Refused(f"no text under {names}.", where=where, why=has, do=f'{{"{columns[0]}": "…"}}')
    return found


@dataclass(frozen=True)
class Job:
    """What is done with every text.

    Attributes:
        compute: texts → a result each. shown: a result as text. empty: the result of an empty line.
    """

    compute: Callable[[list[str]], Sequence[Any]]
    shown: Callable[[Any], str]
    empty: Any


def work(lines: Iterator[Line], job: Job, *, output: Path | None, json: bool) -> list[Any]:
    """The results of all texts, printed or written as soon as their batch is done.

    Empty lines stay, so that line n of the result belongs to line n of the input; they are counted.

    Args:
        output: a file in place of standard output; JSON lines where its name ends so or `json` is set.
        json: with standard output: one JSON list at the end.

    Raises:
        Refused: no text at all, or what `compute` raises, with the place of the text. Interrupted: Ctrl-C; what is
            done is kept in `output`.
    """
    begin, found, empty = time.monotonic(), [], 0
    with ExitStack() as stack:
        sink = _Sink(output, json, stack)
        try:
            while batch := list(islice(lines, BATCH)):
                results = _computed(batch, job)
                empty += sum(not line.text.strip() for line in batch)
                sink.write(batch, results, job)
                found += results
        except KeyboardInterrupt:
            raise _interrupted(len(found), output) from None
    if len(found) == empty:
        raise Refused("there is no text.", where="TEXT", do="a text, @FILE or -")
    if json and output is None and out.from_cli():
        out.result_json(found)
    _closing(found, empty, sink.joined, time.monotonic() - begin, output)
    return found


def _computed(batch: Sequence[Line], job: Job) -> list[Any]:
    filled = [line for line in batch if line.text.strip()]
    try:
        results = iter(job.compute([line.text for line in filled]) if filled else [])
    except OwnlmError as error:
        number = re.fullmatch(r"text (\d+)", str(error.where))
        if number is None:
            raise
        where = filled[int(number[1])].where
        raise type(error)(error.what, where=where, why=error.why, do=error.do) from None
    return [next(results) if line.text.strip() else job.empty for line in batch]


class _Sink:
    """Where results go.

    Attributes:
        joined: results of several lines that were written as one.
    """

    def __init__(self, output: Path | None, json: bool, stack: ExitStack) -> None:
        self.joined = 0
        self._json = json or (output is not None and output.suffix in JSON_LINES)
        self._output, self._stack = output, stack
        self._file: TextIO | None = None

    def write(self, batch: Sequence[Line], results: Sequence[Any], job: Job) -> None:
        """Results of a batch; a file is made when the first of them is there."""
        if self._output is not None and self._file is None:
            self._file = self._stack.enter_context(self._output.open("w", encoding="utf-8", newline="\n"))
        for line, result in zip(batch, results):
            if self._file is not None:
                text = (
                    json_format.dumps(result, ensure_ascii=False)
                    if self._json
                    else self._text(line, result, job)
                )
                self._file.write(text + "\n")
            elif out.from_cli() and not self._json:
                out.result(self._text(line, result, job))
        if self._file is not None:
            self._file.flush()

    def _text(self, line: Line, result: Any, job: Job) -> str:
        text = job.shown(result) if line.text.strip() else ""
        if (line.typed and self._file is None) or "\n" not in text:
            return text
        self.joined += 1
        return " ".join(text.split())


def _interrupted(done: int, output: Path | None) -> Interrupted:
    kept = "what was printed is complete" if output is None else f"{output} holds their results"
    return Interrupted(
        f"stopped after {done:,} texts; {kept}.",
        do=f"the same command with the texts from number {done + 1:,} on",
    )


def _closing(found: Sequence[Any], empty: int, joined: int, seconds: float, output: Path | None) -> None:
    if not out.from_cli():
        return
    if empty:
        out.say(f"{empty:,} of {len(found):,} lines are empty and stay so.")
    if joined:
        out.say(f"{joined:,} results of several lines were written as one line each (--json keeps them).")
    if len(found) > 1:
        place = "" if output is None else f" → {output}"
        out.say(f"{len(found):,} texts in {out.human_seconds(seconds)}{place}", style="dim")
