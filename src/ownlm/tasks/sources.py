"""From what a person typed to files of rows: tables, and pairs of aligned text files."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from ownlm.console.errors import UsageError
from ownlm.corpus.discover import NotRead, SourceFile, discover
from ownlm.corpus.kinds import COMPRESSION_SUFFIX, ROW_KINDS
from ownlm.corpus.readers.opening import Opened
from ownlm.tasks.problems import Problem, Problems
from ownlm.tasks.rows import Row, read_rows, tell_encoding, text_lines
from ownlm.tasks.shapes import is_language

_HELD_OUT = re.compile(r"(?:^|[^a-z])(validation|valid|val|dev|test|eval|trial)(?:[^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One table, or two text files of which line n belongs to line n."""

    files: tuple[SourceFile, ...]

    @property
    def name(self) -> str:
        """What messages call it."""
        return " + ".join(file.name for file in self.files)

    @property
    def held_out(self) -> bool:
        """Whether its name says that it is for validation or test."""
        return _HELD_OUT.search(PurePath(self.files[0].name).name) is not None

    def rows(self, problems: Problems) -> Iterator[Row]:
        """Its rows; what cannot be read is added to `problems`."""
        if len(self.files) == 1:
            return read_rows(self.files[0], problems)
        return _aligned(self.files[0], self.files[1], problems)


def find_sources(typed: Sequence[str | os.PathLike[str]]) -> tuple[list[Source], list[NotRead]]:
    """The sources in the order in which they were typed, and what is not read.

    Raises:
        UsageError: nothing that has rows; a file that does not exist; a text file without its other half.
    """
    files: dict[str, SourceFile] = {}
    not_read: list[NotRead] = []
    for source in typed:
        if os.fspath(source) == "-":
            raise UsageError("rows are read from files: a place in a stream could not be named.", where="-")
        found = discover([source])
        not_read += found.not_read
        for file in found.files:
            files.setdefault(os.path.realpath(file.path), file)
    tables = [file for file in files.values() if file.kind in ROW_KINDS]
    texts = [file for file in files.values() if file.kind not in ROW_KINDS]
    pairs, alone = _pairs(texts)
    for file in alone:
        if file.explicit:
            raise _no_rows(file, texts)
        not_read.append(NotRead(f"{PurePath(file.name).suffix or 'no extension'}: no rows", 1, file.size))
    sources = [*(Source((file,)) for file in tables), *(Source(pair) for pair in pairs)]
    if not sources:
        if alone:
            raise _no_rows(alone[0], texts)
        where = ", ".join(os.fspath(source) for source in typed)
        raise UsageError(
            "no file with rows.", where=where, why="Rows are in .jsonl, .json, .csv, .tsv and .parquet files."
        )
    order = list(files.values())
    return sorted(sources, key=lambda source: order.index(source.files[0])), not_read


def _pairs(texts: list[SourceFile]) -> tuple[list[tuple[SourceFile, SourceFile]], list[SourceFile]]:
    """Text files that differ by a language at the end of their names alone, two by two; the others."""
    groups: dict[str, list[SourceFile]] = {}
    for file in texts:
        groups.setdefault(_without_language(file), []).append(file)
    pairs = [
        (group[0], group[1]) for group in groups.values() if len(group) == 2 and all(map(_language, group))
    ]
    paired = list(itertools.chain(*pairs))
    return pairs, [file for file in texts if file not in paired]


def _parts(file: SourceFile) -> tuple[str, str]:
    """(name, what stands last in it): `train.de.xz` → (`train`, `de`), `news.en.txt` → (`news`, `en`)."""
    path = PurePath(file.name)
    while path.suffix.lower() in (*COMPRESSION_SUFFIX, ".txt"):
        path = path.with_suffix("")
    return str(path.with_suffix("")), path.suffix[1:]


def _without_language(file: SourceFile) -> str:
    return _parts(file)[0]


def _language(file: SourceFile) -> str:
    """The language that a text file is named after, "" for none."""
    suffix = _parts(file)[1]
    return suffix if is_language(suffix) else ""


def _no_rows(file: SourceFile, texts: list[SourceFile]) -> UsageError:
    others = [other for other in texts if _without_language(other) == _without_language(file)]
    if len(texts) > 1:
        named = [other.name for other in others if _language(other)][:2]
        return UsageError(
            f"{len(texts)} text files that are no pairs.",
            where=file.name,
            why="Two aligned files have one name and end in a language: train.en and train.de.",
            do=shlex.join(
                ["ownlm", "data", "check", *(named if len(named) == 2 else ("train.en", "train.de"))]
            ),
        )
    return UsageError(
        "plain text has no rows.",
        where=file.name,
        why="Rows are in .jsonl, .json, .csv, .tsv and .parquet files, or in two text files, line by line.",
        do=f"ownlm prepare {shlex.quote(file.name)} -o corpus   (to pretrain on it)",
    )


def _aligned(first: SourceFile, second: SourceFile, problems: Problems) -> Iterator[Row]:
    """Line n of one file and line n of the other as a row {language: text}."""
    names = _language(first), _language(second)
    opened = Opened(first), Opened(second)
    lines = [dict(text_lines(file, stream, problems)) for file, stream in zip((first, second), opened)]
    for file, stream in zip((first, second), opened):
        tell_encoding(stream, file, problems)
    last = [max(found, default=0) for found in lines]
    if last[0] != last[1]:
        detail = f"{last[0]:,} and {last[1]:,} lines"
        fix = "Line n must belong to line n: nothing of the two is read."
        problems.add(Problem(f"{first.name} + {second.name}", "files of different lengths", fix, detail))
        return
    for number in range(1, last[0] + 1):
        if number in lines[0] and number in lines[1]:
            row = {name: found[number].rstrip("\r\n") for name, found in zip(names, lines)}
            yield Row(
                f"{second.name}:{number}" if not row[names[1]].strip() else f"{first.name}:{number}", row
            )
