"""The rows of a .json file with the line each begins in: an array, an object of columns, SQuAD's nested form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.readers.opening import Opened
from ownlm.tasks.problems import Problem, Problems

MAX_CHARACTERS = 1 << 30  # the whole text is held; a .jsonl file of any size is read line by line

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder()


class _Text:
    """A JSON text and a place in it."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self._line, self._counted = 1, 0

    def line(self, at: int) -> int:
        """The line of a place; places are asked for in order."""
        self._line += self.text.count("\n", self._counted, at)
        self._counted = max(at, self._counted)
        return self._line

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.text[self.at : self.at + 1]

    def skip(self, character: str) -> bool:
        """Step over a character when it comes next."""
        if self.peek() != character:
            return False
        self.at += 1
        return True

    def value(self) -> Any:
        """The next value."""
        self.peek()
        value, self.at = _decoder.raw_decode(self.text, self.at)
        return value


def json_rows(file: SourceFile, opened: Opened, problems: Problems) -> Iterator[tuple[int, Any]]:
    """(line, row) of each row of a file; broken JSON ends it after the rows before."""
    pieces, size = [], 0
    for piece in opened.text():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_CHARACTERS:
            fix = f"Write it as .jsonl, one object a line: a .json file has {MAX_CHARACTERS:,} characters at most."
            problems.add(Problem(file.name, "file too large", fix))
            return
    text = _Text("".join(pieces))
    if opened.broken and "\ufffd" in text.text:
        line = text.text.count("\n", 0, text.text.index("\ufffd")) + 1
        fix = "They are read as \ufffd. Save the file as UTF-8."
        problems.tell(f"{file.name}:{line}", "bytes that are not text", fix, "the first of them")
    if text.peek() == "":
        return
    try:
        if text.peek() == "[":
            yield from _array(text)
        else:
            yield from _object(text)
        if text.peek() != "":
            raise ValueError("more than one value; a .jsonl file has one a line")
    except (ValueError, RecursionError) as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else text.at
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        fix = "The rest of the file is not read. Mend it there."
        problems.add(Problem(f"{file.name}:{text.text.count(chr(10), 0, at) + 1}", "not JSON", fix, reason))


def _array(text: _Text) -> Iterator[tuple[int, Any]]:
    text.skip("[")
    while text.peek() != "]":
        start = text.at
        row = text.value()
        yield from _unfolded(text, start, row)
        if not text.skip(",") and text.peek() != "]":
            raise ValueError("a comma or ] is missing")
    text.skip("]")


def _object(text: _Text) -> Iterator[tuple[int, Any]]:
    """Rows of an object: its one list of objects ("data" in SQuAD), its columns, or the object itself."""
    start = text.at
    whole = text.value()
    if not isinstance(whole, dict):
        yield text.line(start), whole
        return
    lists = {name: cells for name, cells in whole.items() if isinstance(cells, list)}
    of_rows = [name for name, cells in lists.items() if cells and isinstance(cells[0], dict)]
    if len(of_rows) == 1 and of_rows[0] in ("data", "rows", "train"):
        end, found = text.at, text.text.find(json.dumps(of_rows[0]), start)
        text.at = text.text.find("[", found)
        yield from _array(text)
        text.at = end
    elif (
        lists
        and len(lists) == len(whole)
        and len({len(cells) for cells in lists.values()}) == 1
        and not of_rows
    ):
        line = text.line(start)
        yield from ((line, dict(zip(lists, cells))) for cells in zip(*lists.values()))
    else:
        yield from _unfolded(text, start, whole)


def _unfolded(text: _Text, start: int, row: Any) -> Iterator[tuple[int, Any]]:
    """The row; of an article in SQuAD's nested form one row a question, with the line of its own."""
    if not (isinstance(row, dict) and isinstance(row.get("paragraphs"), list)):
        yield text.line(start), row
        return
    at = start
    for values in unfold(row):
        found = _place(text.text, values.get("question"), at, text.at)
        at = found if found >= 0 else at
        yield text.line(at), values


def _place(text: str, question: Any, start: int, end: int) -> int:
    """Where a question stands in the text of its article, -1 when it is written in another way."""
    if not isinstance(question, str):
        return -1
    written = (json.dumps(question, ensure_ascii=ascii_only) for ascii_only in (False, True))
    return max(text.find(form, start, end) for form in written)


def unfold(article: dict[str, Any]) -> Iterator[Any]:
    """The questions of an article in SQuAD's nested form as rows {id, title, context, question, answers}."""
    for paragraph in article["paragraphs"]:
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
            yield paragraph
            continue
        for question in paragraph["qas"]:
            if not isinstance(question, dict):
                yield question
                continue
            title = {"title": article["title"]} if "title" in article else {}
            yield title | {"context": paragraph.get("context")} | question
