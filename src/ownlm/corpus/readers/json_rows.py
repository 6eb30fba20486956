"""JSON files as tables: an array of objects (streamed), an object of columns, one object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.readers.blocks import MAX_ROW
from ownlm.corpus.readers.opening import Opened
from ownlm.corpus.readers.rows import Rows, samples
from ownlm.corpus.readers.settings import ReadSettings

MAX_OBJECT = 256 << 20  # characters of an object of columns, which must be held whole

_SPACE = re.compile(r"[ \t\r\n]*")


class BrokenJson(ValueError):
    """What is wrong, and in which line."""

    def __init__(self, line: int, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.line, self.reason, self.detail = line, reason, detail


class _Values:
    """The values of a JSON text of any size, one after the other."""

    def __init__(self, opened: Opened) -> None:
        self._texts = opened.text()
        self._text, self._at = "", 0
        self._line, self._counted = 1, 0
        self._scan = json.JSONDecoder().raw_decode

    @property
    def line(self) -> int:
        """The line of what comes next."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def more(self, least: int = 1) -> bool:
        """Read `least` characters more and let go what was consumed; False at the end."""
        _ = self.line
        pieces, got = [self._text[self._at :]], 0
        for text in self._texts:
            pieces.append(text)
            got += len(text)
            if got >= least:
                break
        self._text, self._at, self._counted = "".join(pieces), 0, 0
        return got > 0

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self.more():
                return ""

    def skip(self, character: str) -> bool:
        """Step over a character when it comes next."""
        if self.peek() != character:
            return False
        self._at += 1
        return True

    def value(self, limit: int = MAX_ROW) -> Any:
        """The next value. Broken JSON and JSON that goes on look the same for `limit` characters."""
        self.peek()
        while True:
            left = len(self._text) - self._at
            try:
                value, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                if left > limit:
                    raise BrokenJson(self.line, "not JSON, or a value over the limit", error.msg) from None
                if not self.more(max(left, 1)):
                    raise BrokenJson(self.line, "not JSON", error.msg) from None
                continue
            except (ValueError, RecursionError) as error:
                raise BrokenJson(self.line, "not JSON", str(error)) from None
            if end == len(self._text) and isinstance(value, (int, float)) and self.more():
                continue  # the digits may go on
            self._at = len(self._text) if end >= len(self._text) else end
            return value


def read(file: SourceFile, settings: ReadSettings, opened: Opened) -> Iterator[Document | Dropped]:
    """One document a row; broken JSON ends the file after the rows before it."""
    rows = Rows(file, settings)
    try:
        for line, row in _numbered(_Values(opened), settings):
            yield rows.document(row, line, opened.encoding, opened.broken)
    except BrokenJson as error:
        yield rows.dropped(error.line, f"{error.reason}: the rest of the file is not read", error.detail)
    yield from opened.problems()


def columns(file: SourceFile) -> dict[str, str] | None:
    """The columns of the first row, none when it is not an object; None when there is no row."""
    values = _Values(Opened(file))
    try:
        if not values.skip("["):
            row = values.value(MAX_OBJECT)
        elif values.peek() == "]":
            return None
        else:
            row = values.value()
    except BrokenJson:
        return None
    if not isinstance(row, dict):
        return {}
    return samples({name: cell[0] if isinstance(cell, list) and cell else cell for name, cell in row.items()})


def _numbered(values: _Values, settings: ReadSettings) -> Iterator[tuple[int, Any]]:
    """(line, row) of every row. The rows of an object of columns have the line the object starts in."""
    first = values.peek()
    if first == "":
        return
    if not values.skip("["):
        line = values.line
        content = values.value(MAX_OBJECT)
        yield from ((line, row) for row in _transposed(content, settings, line))
        if values.peek() != "":
            raise BrokenJson(values.line, "more than one JSON value", "a .jsonl file has one value a line")
        return
    while values.peek() != "]":
        line = values.line
        row = values.value()
        yield line, row
        if not values.skip(",") and values.peek() != "]":
            raise BrokenJson(values.line, "not JSON", "a comma or ] is missing")


def _transposed(content: Any, settings: ReadSettings, line: int) -> Iterator[Any]:
    """The rows of an object of columns of equal length; any other value is one row."""
    column = content.get(settings.column) if isinstance(content, dict) else None
    if not isinstance(column, list):
        yield content
        return
    lists = {name: cells for name, cells in content.items() if isinstance(cells, list)}
    if {len(cells) for cells in lists.values()} != {len(column)}:
        lengths = ", ".join(f"{name}: {len(cells)}" for name, cells in lists.items())[:200]
        raise BrokenJson(line, "columns of different lengths", lengths)
    for cells in zip(*lists.values()):
        yield dict(zip(lists, cells))
