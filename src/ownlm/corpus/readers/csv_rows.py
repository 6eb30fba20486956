"""CSV and TSV with a header line (RFC 4180): quoted cells may hold separators, quotes and line ends."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.readers.blocks import MAX_ROW
from ownlm.corpus.readers.opening import Opened
from ownlm.corpus.readers.rows import Rows
from ownlm.corpus.readers.settings import ReadSettings

SEPARATORS = ",;\t|"


def read(file: SourceFile, settings: ReadSettings, opened: Opened) -> Iterator[Document | Dropped]:
    """One document a row."""
    rows = Rows(file, settings)
    csv.field_size_limit(MAX_ROW)
    reader, header = _reader(file, opened)
    last = reader.line_num if reader is not None else 0
    while reader is not None:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield rows.dropped(last + 1, "broken row", str(error))
            last = reader.line_num
            continue
        if cells is None:
            break
        line, last = last + 1, reader.line_num
        if len(cells) == len(header):
            yield rows.document(dict(zip(header, cells)), line, opened.encoding, opened.broken)
        elif cells:
            difference = f"{len(cells)}, not {len(header)}"
            yield rows.dropped(line, "number of cells differs from the header", difference)
    yield from opened.problems()


def columns(file: SourceFile) -> dict[str, str] | None:
    """The header with the cells of the first row, None for an empty file."""
    csv.field_size_limit(MAX_ROW)
    reader, header = _reader(file, Opened(file))
    if reader is None:
        return None
    try:
        first = next(reader, None) or []
    except csv.Error:
        first = []
    return {name: first[i] if i < len(first) else "" for i, name in enumerate(header)}


def _reader(file: SourceFile, opened: Opened) -> tuple[Any, list[str]]:
    """A reader that stands behind the header, and the header."""
    lines = _lines(opened.text())
    first = list(islice(lines, 1))
    if not first:
        return None, []
    separator = "\t" if file.kind == "tsv" else max(SEPARATORS, key=first[0].count)
    reader = csv.reader(chain(first, lines), delimiter=separator)
    try:
        return reader, next(reader, [])
    except csv.Error:
        return reader, []


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines with their ends, `\\n` alone ends one; a line beyond the limit is given in pieces."""
    held = ""
    for text in texts:
        first, *others = text.split("\n")
        held += first
        if others:
            yield held + "\n"
            *whole, held = others
            for line in whole:
                yield line + "\n"
        elif len(held) > 2 * MAX_ROW:
            yield held
            held = ""
    if held:
        yield held
