"""All staged documents in reading order, as one memory-mapped table, and what was decided about each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.corpus.parts import STAGED, Part, ending_of

TRAIN, VALIDATION, BOTH, EXACT, NEAR, GROUP = range(6)  # fates; BOTH: the tail of a document is validation
CHUNK = 2**18  # documents looked at together


class Catalogue:
    """The staged parts as one table.

    Args:
        parts: in reading order.
        folder: where the table is written.
        sources: names of the source files, by number.

    Attributes:
        rows: `STAGED` [documents]; `offset` counts inside each part's text file.
        starts: number of each part's first document, int64 [parts + 1].
    """

    def __init__(self, parts: Sequence[Part], folder: Path, sources: Sequence[str]) -> None:
        self.parts, self.sources = parts, sources
        self.starts = np.cumsum([0] + [part.count for part in parts])
        self.path = folder / "documents.bin"
        concatenate((ending_of(part.path, ".documents") for part in parts), self.path)
        self.rows = mapped(self.path, STAGED)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def where(self, document: int) -> str:
        """`file:line` of a document."""
        row = self.rows[document]
        return f"{self.sources[int(row['source'])]}:{int(row['line'])}"

    def chunks(self) -> Iterator[slice]:
        """Slices that cover all documents."""
        for begin in range(0, len(self), CHUNK):
            yield slice(begin, min(begin + CHUNK, len(self)))

    def part_of(self, document: int) -> tuple[Part, int]:
        """The part that holds a document, and the document's number in it."""
        number = int(np.searchsorted(self.starts, document, side="right")) - 1
        return self.parts[number], document - int(self.starts[number])


class Decisions:
    """What became of every document; saved, so that a later start need not decide again.

    Attributes:
        fate: uint8 [documents].
        kept: for a dropped duplicate the document that stands for it, else itself; int64 [documents].
        similarity: float32 [documents], of near duplicates to the document they were linked with.
        notes: sentences and numbers for the manifest.
    """

    COLUMNS = (("fate", np.uint8), ("kept", np.int64), ("similarity", np.float32))

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: dict[str, Any] = {}
        self.fate = mapped(folder / "fate", np.dtype(np.uint8))
        self.kept = mapped(folder / "kept", np.dtype(np.int64))
        self.similarity = mapped(folder / "similarity", np.dtype(np.float32))

    @classmethod
    def made(cls, folder: Path, documents: int, decide: Callable[[Decisions], None]) -> Decisions:
        """The decisions in `folder`; when they are not there, `decide` fills new ones."""
        if not (folder / "notes.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name, kind in cls.COLUMNS:
                zeros(folder / name, documents * np.dtype(kind).itemsize)
            decisions = cls(folder)
            decide(decisions)
            partial = folder / "notes.json.partial"
            partial.write_text(json.dumps(decisions.notes), encoding="utf-8")
            partial.replace(folder / "notes.json")
        decisions = cls(folder)
        decisions.notes = json.loads((folder / "notes.json").read_text(encoding="utf-8"))
        return decisions


def mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    """A file as an array that is read and written in place (an empty file cannot be mapped)."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r+")


def zeros(path: Path, size: int) -> None:
    """A file of zeros that has its place on the disk.

    Writing to a mapped file with holes would end the process with SIGBUS once the disk is full; this fails
    with an error.
    """
    with path.open("wb") as file:
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def concatenate(parts: Iterator[Path], target: Path) -> None:
    """Write the contents of files one after the other into `target`."""
    with target.open("wb") as output:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, output, 2**22)
