"""log.jsonl: one JSON line a step, the truth about a run. Lines after a checkpoint are cut when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


class RunLog:
    """Appends lines and flushes each, so that a kill loses none.

    Args:
        tracker: called with each line once it is written.
    """

    def __init__(self, path: Path, tracker: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        self.path, self._tracker = path, tracker
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, kind: str, **values: Any) -> None:
        """One line: {"kind": kind, **values}; floats are rounded to what is meaningful."""
        rounded = {k: _rounded(v) if isinstance(v, float) else v for k, v in values.items()}
        self._file.write(json.dumps({"kind": kind, **rounded}, ensure_ascii=False) + "\n")
        self._file.flush()
        self._tracker({"kind": kind, **rounded})

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log (a half last line, left by a kill, is not one)."""
    if not path.exists():
        return []
    lines = []
    # The cut may lie inside a character; and only \n ends a line, samples may hold U+0085 or U+2028.
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            lines.append(entry)
    return lines


def cut_log(path: Path, step: int) -> int:
    """Keep the lines up to and including `step`; returns how many were cut."""
    lines = read_log(path)
    kept = [line for line in lines if line.get("step", 0) <= step]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8"
    )
    temporary.replace(path)
    return len(lines) - len(kept)


def _rounded(value: float) -> float:
    """Six decimals, of small numbers six digits: a learning rate of 1e-7 is not 0."""
    return round(value, 6) if abs(value) >= 0.1 else float(f"{value:.6g}")
