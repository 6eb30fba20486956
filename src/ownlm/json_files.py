"""Reading the JSON files of model folders, which may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ownlm.console.errors import Refused

MAX_BYTES = 64 * 2**20


def read_object(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The content of a file that holds a JSON object.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none. Refused: it is larger than `max_bytes`,
            or holds something else.
    """
    if path.stat().st_size > max_bytes:
        raise Refused(f"larger than {max_bytes >> 20} MiB.", where=path, why="No settings are that long.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"not valid JSON: {error}.", where=path) from None
    if not isinstance(content, dict):
        raise Refused("not a JSON object.", where=path)
    return content
