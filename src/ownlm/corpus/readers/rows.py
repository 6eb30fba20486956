"""Rows of tables: the text and the group out of a row, and JSON Lines, one row a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.readers.blocks import Block, decode_block, lines
from ownlm.corpus.readers.opening import Opened
from ownlm.corpus.readers.settings import ReadSettings
from ownlm.corpus.readers.text import EMPTY

PEEKED_ROWS = 20  # rows whose keys are the columns of a file without a header

_decoder = json.JSONDecoder()
_decode = _decoder.decode
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]


class Rows:
    """Makes documents of the rows of one source.

    Args:
        file: where they come from.
        settings: which column holds the text, which the group.
    """

    def __init__(self, file: SourceFile, settings: ReadSettings) -> None:
        self.name, self.kind = file.name, file.kind
        self.column, self.group_column = settings.column, settings.group_column
        self.group = settings.path_group(file)

    def document(self, row: Any, line: int, encoding: str, broken: bool = False) -> Document | Dropped:
        """The document of a row (a dict), or why it has none."""
        if type(row) is not dict:
            return self.dropped(line, "row is not an object", type(row).__name__)
        text = row.get(self.column)
        if type(text) is not str or not text or text.isspace():
            return self._without_text(row, line)
        group = self.group
        if self.group_column is not None:
            key = row.get(self.group_column)
            group = None if key is None or key == "" else str(key)
        replaced = text.count("\ufffd") if broken else 0
        return Document(text, self.name, line, group, self.kind, encoding, 0, replaced)

    def dropped(self, line: int, reason: str, detail: str = "") -> Dropped:
        """A row of this source that is dropped."""
        return Dropped(f"{self.name}:{line}", reason, detail)

    def _without_text(self, row: dict[str, Any], line: int) -> Dropped:
        if self.column not in row:
            return self.dropped(line, f'no column "{self.column}"', ", ".join(map(str, row))[:200])
        text = row[self.column]
        if text is None or isinstance(text, str):
            return self.dropped(line, EMPTY)
        return self.dropped(line, f'column "{self.column}" is not a string', type(text).__name__)


def parse_lines(
    file: SourceFile, block: Block, encoding: str, settings: ReadSettings
) -> Iterator[Document | Dropped]:
    """The documents of one block of JSON Lines."""
    rows = Rows(file, settings)
    if block.too_long:
        yield rows.dropped(block.line, "row longer than 64 MB")
        return
    text, replaced = decode_block(block.data, encoding)
    broken = replaced > 0
    at, number = 0, block.line - 1
    while at <= len(text):
        number += 1
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        try:
            # One value and nothing else in the line, as almost every line is: no copy of it is made.
            row, stop = _scan(text, at)
            plain = stop == end
        except (StopIteration, ValueError, RecursionError):
            plain = False
        if not plain:
            line = text[at:end]
            at = end + 1
            if not line or line.isspace():
                continue
            try:
                row = _decode(line)
            except (ValueError, RecursionError) as error:
                yield rows.dropped(number, "not JSON", str(error))
                continue
        at = end + 1
        yield rows.document(row, number, encoding, broken)


def line_columns(file: SourceFile) -> dict[str, str] | None:
    """The keys of the first rows of a JSON Lines file with a sample each, None when there is no row."""
    opened = Opened(file)
    block = next(lines(islice(opened, 1)), None)
    if block is None:
        return None
    found: dict[str, str] = {}
    seen = False
    for line in islice(decode_block(block.data, opened.encoding)[0].split("\n"), PEEKED_ROWS):
        try:
            row = _decode(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            seen = True
            found |= samples(row)
    return found if seen else None


def samples(row: dict[str, Any]) -> dict[str, str]:
    """The columns of a row, with their text when they are text."""
    return {str(name): value if isinstance(value, str) else "" for name, value in row.items()}
