"""Sorting more keys than memory holds: split by their top bits into files, each then sorted in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

IN_MEMORY = 2**23  # keys (64 MB) sorted at a time
MOST_FILES = 512  # open at a time; a quarter of the usual limit would do for 4e9 keys


class Buckets:
    """Keys of which the low bits are a number (a document, a row), grouped by their high bits.

    Args:
        folder: for temporary files; used only beyond `IN_MEMORY` keys.
        count: how many numbers there are.
        expected: how many keys will be added.
    """

    def __init__(self, folder: Path, count: int, expected: int) -> None:
        self.number_bits = np.uint64(max(count - 1, 1).bit_length())
        self.number_mask = (np.uint64(1) << self.number_bits) - np.uint64(1)
        files = 1
        while expected / files > IN_MEMORY and files < MOST_FILES:
            files *= 2
        self._shift = np.uint64(64 - files.bit_length() + 1)
        self._held: list[np.ndarray] = []
        self._files = []
        if files > 1:
            folder.mkdir(parents=True, exist_ok=True)
            self._files = [(folder / f"keys-{number:03d}").open("w+b") for number in range(files)]

    def add(self, hashes: np.ndarray, numbers: np.ndarray) -> None:
        """Add uint64 hashes with their numbers (any integer dtype)."""
        keys = (hashes & ~self.number_mask) | numbers.astype(np.uint64)
        if not self._files:
            self._held.append(keys)
            return
        keys.sort()
        bounds = np.searchsorted(keys >> self._shift, np.arange(1, len(self._files)))
        for file, part in zip(self._files, np.split(keys, bounds)):
            if len(part):
                file.write(part.data)

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(first, previous, number), int64 arrays, of every number whose hash agrees with smaller ones."""
        for keys in self._sorted():
            same = (keys[1:] ^ keys[:-1]) <= self.number_mask
            later = np.flatnonzero(same) + 1
            if not len(later):
                continue
            begins = np.arange(len(keys))
            begins[later] = 0
            first = np.maximum.accumulate(begins)[later]
            numbers = (keys & self.number_mask).astype(np.int64)
            yield numbers[first], numbers[later - 1], numbers[later]

    def _sorted(self) -> Iterator[np.ndarray]:
        if not self._files:
            if self._held:
                keys = np.concatenate(self._held)
                self._held = []
                keys.sort()
                yield keys
            return
        for file in self._files:
            file.flush()
            file.seek(0)
            keys = np.fromfile(file, np.uint64)
            file.close()
            Path(file.name).unlink()
            keys.sort()
            yield keys
