"""What a cell of a row says: a text, a list, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ownlm.tasks.problems import BadRow

Values = dict[str, Any]
Tell = Callable[
    [str, str, str], None
]  # (kind, fix, detail) of something about a row that is used all the same


def text_of(row: dict[str, Any], column: str) -> str:
    """The text of a cell.

    Raises:
        BadRow: no such column, no text in it, half of a surrogate pair.
    """
    if column not in row:
        raise BadRow(
            f'no column "{column}"', f"It is needed; this row has: {', '.join(row)[:200] or 'none'}."
        )
    value = row[column]
    if value is None:
        raise BadRow(f'"{column}" is null', "Give a text, or leave the row out.")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadRow(f'"{column}" is not a text', "Give a text.", type(value).__name__)
    text = str(value)
    if not text or text.isspace():
        raise BadRow(f'"{column}" is empty', "Give a text, or leave the row out.")
    check_characters(text, column)
    return text


def check_characters(text: str, column: str) -> None:
    """Raise BadRow for halves of surrogate pairs, which no file in UTF-8 can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        detail = f"character {error.start + 1} is \\u{ord(text[error.start]):04x}"
        raise BadRow(
            f'"{column}" holds half of a surrogate pair', "Write the whole character.", detail
        ) from None


def has_text(value: Any) -> bool:
    """Whether an optional cell says something."""
    return value is not None and value != [] and not (isinstance(value, str) and not value.strip())


def listed(values: Values, name: str) -> list[Any]:
    """A cell that must be a list with something in it."""
    if name not in values:
        raise BadRow(
            f'no column "{name}"', f"It is needed; this row has: {', '.join(values)[:200] or 'none'}."
        )
    found = as_list(values[name], name)
    if not found:
        raise BadRow(f'"{name}" is empty', "Leave the row out, or fill it.")
    return found


def as_list(value: Any, name: str) -> list[Any]:
    """A list, also one that is written as JSON in a cell of a table."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise BadRow(f'"{name}" is not a list', "Write a JSON list.", value[:40]) from None
        value = [value] if isinstance(value, dict) else value
    if value is None:
        raise BadRow(f'"{name}" is null', "Leave the row out, or fill it.")
    if not isinstance(value, list):
        raise BadRow(f'"{name}" is not a list', "Write a list.", type(value).__name__)
    for cell in value:
        if isinstance(cell, str):
            check_characters(cell, name)
    return value
