"""Small data files for the tests of this room."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHAT = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The fox."}]}


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def turns(*contents: str, first: str = "user") -> list[dict[str, str]]:
    """Messages that take turns."""
    order = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": order[i % 2], "content": content} for i, content in enumerate(contents)]
