"""A staged part on disk, as the first pass leaves it, and the counts of one step.

A part is files that share a name: `.txt` (UTF-8 texts back to back), `.documents` (`STAGED` rows),
`.signatures` and `.signed` (MinHash rows, the document of each), `.dropped` (JSON lines), `.json` (counts).
The last one is written last, all under temporary names first: a part is there whole, or not at all. Its name
holds a fingerprint of the sources and settings, so that going on after a kill is: skip what is there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.corpus.hashes import PERMUTATIONS

# offset, bytes: place in the .txt; high, low: halves of the text's hash; group: hash of its key, 0 for none;
# source: position in the list of source files; line, part: where it begins there.
STAGED = np.dtype(
    [
        ("offset", "<u8"),
        ("bytes", "<u8"),
        ("high", "<u8"),
        ("low", "<u8"),
        ("group", "<u8"),
        ("source", "<u4"),
        ("line", "<u4"),
        ("part", "<u4"),
    ]
)
ENDINGS = (".txt", ".documents", ".signatures", ".signed", ".dropped")


@dataclass
class Flow:
    """Documents and bytes into and out of one step, and what was dropped, by reason."""

    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def passed(self, bytes_in: int, bytes_out: int, documents: int = 1) -> None:
        self.documents_in += documents
        self.documents_out += documents
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def drop(self, bytes_in: int, reason: str) -> None:
        self.documents_in += 1
        self.bytes_in += bytes_in
        self.dropped[reason] += 1

    def add(self, other: dict[str, Any]) -> None:
        """Add the counts of another part, as they stand in its JSON."""
        for name in ("documents_in", "documents_out", "bytes_in", "bytes_out"):
            setattr(self, name, getattr(self, name) + other[name])
        self.dropped.update(other["dropped"])
        self.changed.update(other["changed"])

    def as_dict(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {
            "documents_in": self.documents_in,
            "documents_out": self.documents_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "dropped": dict(sorted(self.dropped.items())),
            "changed": dict(sorted(self.changed.items())),
        }


def ending_of(path: Path, ending: str) -> Path:
    """A file of the part at `path`."""
    return path.with_name(path.name + ending)


class Part:
    """A finished part."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path, self.meta = path, meta
        self.count: int = meta["documents"]

    @classmethod
    def find(cls, path: Path) -> Part | None:
        """The part at `path`, if it is complete."""
        try:
            return cls(path, json.loads(ending_of(path, ".json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @property
    def text_path(self) -> Path:
        return ending_of(self.path, ".txt")

    def rows(self) -> np.ndarray:
        """`STAGED` [documents], read into memory."""
        return np.fromfile(ending_of(self.path, ".documents"), STAGED)

    def signatures(self) -> np.ndarray:
        """uint32 [signed, PERMUTATIONS]."""
        return np.fromfile(ending_of(self.path, ".signatures"), "<u4").reshape(-1, PERMUTATIONS)

    def signed(self) -> np.ndarray:
        """The document (in this part) of each signature, uint32 [signed]."""
        return np.fromfile(ending_of(self.path, ".signed"), "<u4")

    def dropped(self) -> Iterator[bytes]:
        """The JSON lines of what was dropped while reading and cleaning."""
        with ending_of(self.path, ".dropped").open("rb") as file:
            yield from file


def read_texts(path: Path, rows: np.ndarray) -> list[bytes]:
    """The texts of consecutive `STAGED` rows of one part."""
    if not len(rows):
        return []
    first = int(rows["offset"][0])
    ends = (rows["offset"] + rows["bytes"]).tolist()
    with path.open("rb") as file:
        file.seek(first)
        data = file.read(ends[-1] - first)
    return [data[begin - first : end - first] for begin, end in zip(rows["offset"].tolist(), ends)]
