"""Rows of jsonl, json, csv, tsv and parquet files, and of aligned text files, each with its `file:line`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.readers.blocks import MAX_ROW, lines
from ownlm.corpus.readers.opening import Opened
from ownlm.tasks.json_file import json_rows, unfold
from ownlm.tasks.problems import Problem, Problems

SEPARATORS = ",;\t|"
BROKEN_BYTES = "bytes that are not text"
SAVE_AS_UTF8 = "Save the file as UTF-8."


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands in its file.

    Attributes:
        where: `file:line`; for Parquet the number of the row.
        values: column → cell; None where a cell is empty in a way its format knows (null, NaN).
    """

    where: str
    values: dict[str, Any]


def read_rows(file: SourceFile, problems: Problems) -> Iterator[Row]:
    """The rows of a file; what cannot be read is added to `problems`."""
    if file.kind == "parquet":
        yield from _parquet(file, problems)
        return
    opened = Opened(file)
    found = {"jsonl": _json_lines, "json": json_rows, "csv": _csv, "tsv": _csv}[file.kind](
        file, opened, problems
    )
    for line, values in found:
        where = f"{file.name}:{line}"
        if not isinstance(values, dict):
            fix = 'A row is an object: {"column": "text", …}.'
            problems.add(Problem(where, "row is not an object", fix, type(values).__name__))
            continue
        yield Row(where, {str(name): _cell(value) for name, value in values.items()})
    tell_encoding(opened, file, problems)


def tell_encoding(opened: Opened, file: SourceFile, problems: Problems) -> None:
    """Add what is known of a file once it was read: another encoding than UTF-8, damage."""
    if opened.encoding not in ("utf-8", "utf-8-sig"):
        problems.tell(file.name, f"read as {opened.encoding}", f"If its letters look wrong: {SAVE_AS_UTF8}")
    for dropped in opened.problems():
        problems.add(
            Problem(dropped.where, dropped.reason, dropped.do or "Nothing of it is read.", dropped.detail)
        )


def text_lines(file: SourceFile, opened: Opened, problems: Problems) -> Iterator[tuple[int, str]]:
    """(number from 1, line with its line end) of a text; a line that is too long or not text is a problem."""
    for block in lines(opened):
        if block.too_long:
            fix = f"A row has {MAX_ROW >> 20} MB at most."
            problems.add(Problem(f"{file.name}:{block.line}", "row too long", fix))
            continue
        for number, data in enumerate(_split(block.data), block.line):
            try:
                yield number, data.decode("utf-8")
            except UnicodeDecodeError as error:
                detail = f"byte {error.start + 1} of the line is {data[error.start]:#04x}"
                problems.add(Problem(f"{file.name}:{number}", BROKEN_BYTES, SAVE_AS_UTF8, detail))


def _split(data: bytes) -> list[bytes]:
    """Lines with their ends; only `\\n` ends one."""
    found = [line + b"\n" for line in data.split(b"\n")]
    found[-1] = found[-1][:-1]
    return found if found[-1] else found[:-1]


def _json_lines(file: SourceFile, opened: Opened, problems: Problems) -> Iterator[tuple[int, Any]]:
    for number, line in text_lines(file, opened, problems):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            detail = " ".join(str(error).split())
            problems.add(Problem(f"{file.name}:{number}", "not JSON", "One object a line.", detail))
            continue
        if isinstance(value, dict) and isinstance(value.get("paragraphs"), list):
            yield from ((number, values) for values in unfold(value))
        else:
            yield number, value


def _csv(file: SourceFile, opened: Opened, problems: Problems) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(MAX_ROW)
    source = _Lines(text_lines(file, opened, problems))
    first = next(source, None)
    if first is None:
        return
    separator = "\t" if file.kind == "tsv" else max(SEPARATORS, key=first.count)
    source.held = first
    reader = csv.reader(source, delimiter=separator)
    header: list[str] | None = None
    while True:
        source.first = 0
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.add(
                Problem(
                    f"{file.name}:{source.number}", "broken row", "Quote cells as RFC 4180 says.", str(error)
                )
            )
            continue
        if cells is None:
            return
        if header is None:
            header = [name.strip() for name in cells]
        elif len(cells) == len(header):
            yield source.first, dict(zip(header, cells))
        elif cells:
            detail = f"{len(cells)}, the header has {len(header)}"
            fix = "Quote cells that hold a separator or a line end."
            problems.add(Problem(f"{file.name}:{source.first}", "another number of cells", fix, detail))


class _Lines:
    """The lines of a text for the csv reader, and which it has taken.

    Attributes:
        number: of the line taken last. first: of the first line taken since it was set to 0.
        held: a line to be given (again) before the others.
    """

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self.number = self.first = 0
        self.held: str | None = None

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.held is not None:
            line, self.held = self.held, None
        else:
            self.number, line = next(self._numbered)
        self.first = self.first or self.number
        return line


def _parquet(file: SourceFile, problems: Problems) -> Iterator[Row]:
    import pyarrow

    from ownlm.corpus.readers.parquet import open_parquet

    row = 0
    try:
        with open_parquet(file) as table:
            for batch in table.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    row += 1
                    yield Row(f"{file.name}:{row}", {str(name): _cell(cell) for name, cell in values.items()})
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        fix = "Write the file again; what follows is not read."
        problems.add(
            Problem(f"{file.name}:{row + 1}", "damaged Parquet", fix, " ".join(str(error).split())[:200])
        )


def _cell(value: Any) -> Any:
    """A cell; NaN, which pandas writes for an empty one, is None."""
    return None if isinstance(value, float) and math.isnan(value) else value
