"""JSON in and out: read with care, because it comes from anywhere, and always valid when it is sent."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ownlm.server.errors import ApiError

MAX_DEPTH = 64  # objects and lists inside each other


def to_json(value: Any) -> bytes:
    """UTF-8 JSON; halves of surrogate pairs, which a request may hold, become `?`.

    Raises:
        ValueError: a number that is not finite.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "replace"
    )


def read_json(data: bytes) -> dict[str, Any]:
    """The object that a request holds.

    Raises:
        ApiError: 400: no JSON object, a key twice, NaN, or too deep.
    """
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ApiError(400, "The request is nested too deeply.") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are
        raise ApiError(400, f"The request is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(found, dict):
        raise ApiError(400, "The request must be a JSON object.", code="invalid_json")
    if _depth(found) > MAX_DEPTH:
        raise ApiError(400, f"The request is nested deeper than {MAX_DEPTH} levels.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:60]!r} comes twice")
        found[key] = value
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _depth(value: Any) -> int:
    """Levels of a document, counted without recursion."""
    level, deepest = [value], 0
    while level:
        deepest += 1
        if deepest > MAX_DEPTH:
            return deepest
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
    return deepest
