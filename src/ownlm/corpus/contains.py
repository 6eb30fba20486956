"""Whether a corpus holds a document, and how often a run was trained on each of its tokens.

A corpus keeps no hashes of its documents: they are computed from its shards, for those of the right length only where
the text is known. Texts are compared whole; a part of a document, or nearly the same text, is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.console.progress import Progress
from ownlm.corpus.batches import ROUNDS, Batches, permuted
from ownlm.corpus.hashes import text_hash
from ownlm.corpus.shards import SPLITS, Corpus
from ownlm.corpus.split import TAIL_SHARE, Rule, tail_cut
from ownlm.seeds import derive

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """A text in a corpus: its document in each split, by number; both where its end was cut off for validation."""

    train: int | None = None
    validation: int | None = None


def tail_share(corpus: Corpus) -> float:
    """The share of each document whose end is validation text; 0.0 when documents are not cut."""
    rule = Rule.parse(corpus.manifest["settings"]["validation"])
    if rule.kind == "auto":  # what it became is only said in words
        cut = str(corpus.manifest["splits"]["validation"].get("rule", "")).startswith("the last ")
        return TAIL_SHARE if cut else 0.0
    return rule.share if rule.kind == "tail" else 0.0


def lengths_of(text: bytes, tail: float) -> set[int]:
    """The lengths in bytes that a document may have which holds this text, or its beginning before the cut."""
    return {len(text), tail_cut(text, tail)} if tail else {len(text)}


def hashed_documents(corpus: Corpus, lengths: Collection[int] | None = None) -> Iterator[tuple[bytes, Place]]:
    """(hash, place) of the texts of a corpus; where a document was cut, of its two parts and of the whole.

    Args:
        lengths: of the documents that are looked at, in bytes; None: all.
    """
    tail = tail_share(corpus)
    ends = _ends(corpus) if tail else {}
    for name in SPLITS:
        split = corpus.split(name)
        sizes = split.document_bytes
        chosen = np.arange(len(sizes)) if lengths is None else np.flatnonzero(np.isin(sizes, list(lengths)))
        with Progress(f"looking through {name} text", int(sizes[chosen].sum())) as progress:
            for number in chosen.tolist():
                text = corpus.tokenizer.decode_bytes(split.document(number)[1:])
                progress.update(len(text))
                yield (
                    text_hash(text),
                    Place(train=number) if name == "train" else Place(validation=number),
                )
                if name == "train" and ends:
                    for end in _continued(corpus, number, text, ends):
                        rest = corpus.tokenizer.decode_bytes(corpus.split("validation").document(end)[1:])
                        yield text_hash(text + rest), Place(number, end)


def gives_texts_back(corpus: Corpus) -> bool:
    """Whether its tokenizer decodes documents to the texts they were made from: one that lower-cases does not.

    Told by the lengths of the first documents.
    """
    split = corpus.split("train")
    first = range(min(split.num_documents, 20))
    decoded = (len(corpus.tokenizer.decode_bytes(split.document(number)[1:])) for number in first)
    return all(size == int(split.document_bytes[number]) for number, size in zip(first, decoded))


_Start = tuple[int, int, int]  # source, part, line


def _ends(corpus: Corpus) -> dict[_Start, list[int]]:
    """The validation documents by where they begin in their source."""
    found: dict[_Start, list[int]] = {}
    split = corpus.split("validation")
    for number in range(split.num_documents):
        row = split.row(number)
        found.setdefault((int(row["source"]), int(row["part"]), int(row["line"])), []).append(number)
    return found


def _continued(corpus: Corpus, number: int, text: bytes, ends: dict[_Start, list[int]]) -> list[int]:
    """The validation documents that begin in the source where a training document ends."""
    row = corpus.split("train").row(number)
    return ends.get((int(row["source"]), int(row["part"]), int(row["line"]) + text.count(b"\n")), [])


class Exposure:
    """How often each token of the training text was trained on in the first steps of a run.

    A token is trained on when a row has it as a target: a row that starts at s trains the tokens s + 1 to s + context.

    Args:
        batches: the data order of the run.
        steps: that were made, the left out ones included.
        left_out: numbers, from 0, of steps that made no update.
    """

    def __init__(self, batches: Batches, steps: int, left_out: Collection[int] = ()) -> None:
        self.batches, self.steps, self.left_out = batches, steps, left_out

    def counts(self, start: int, stop: int) -> Counts:
        """Times that each of the tokens [start, stop) of the split was trained on, int64 [stop - start]."""
        whole, rest = divmod(self.steps * self.batches.rows, self.batches.blocks)
        changes = np.zeros(stop - start + 1, np.int64)
        for epoch in range(whole):
            first = self._first_target(epoch)
            self._add(changes, start, stop, first, first + self.batches.tokens_per_epoch)
        for row in self._left_out_rows:
            self._add(changes, start, stop, row + 1, row + 1 + self.batches.context, -1)
        counts: Counts = np.cumsum(changes[:-1])
        return counts + self._begun_epoch(whole, rest, start, stop)

    @staticmethod
    def _add(changes: Counts, start: int, stop: int, low: int, high: int, amount: int = 1) -> None:
        low, high = max(low, start), min(high, stop)
        if low < high:
            changes[low - start] += amount
            changes[high - start] -= amount

    def _first_target(self, epoch: int) -> int:
        """The first token of the split that the epoch trains."""
        if epoch not in self._offsets:
            key = derive(self.batches.seed, "data order", epoch)
            first_row = permuted(0, self.batches.blocks, key) * self.batches.context
            serial = epoch * self.batches.blocks
            step, row = divmod(serial, self.batches.rows)
            self._offsets[epoch] = self.batches.starts(step, row, 1)[0] - first_row + 1
        return self._offsets[epoch]

    @cached_property
    def _offsets(self) -> dict[int, int]:
        return {}

    @cached_property
    def _left_out_rows(self) -> list[int]:
        steps = (step for step in sorted(self.left_out) if step < self.steps)
        return [row for step in steps for row in self.batches.starts(step, 0, self.batches.rows)]

    def _begun_epoch(self, epoch: int, visited: int, start: int, stop: int) -> Counts:
        """1 for each token in one of the first `visited` blocks of an epoch, else 0."""
        place = np.arange(start, stop) - self._first_target(epoch)
        blocks = place // self.batches.context
        inside = (blocks >= 0) & (blocks < self.batches.blocks)
        trained = np.zeros(stop - start, np.int64)
        if visited and inside.any():
            wanted, owner = np.unique(blocks[inside], return_inverse=True)
            key = derive(self.batches.seed, "data order", epoch)
            trained[inside] = (unpermuted(wanted, self.batches.blocks, key) < visited)[owner]
        return trained


def unpermuted(images: npt.NDArray[Any], count: int, key: int) -> Counts:
    """Which index `batches.permuted` maps to each of these images: its rounds backwards, many at a time, int64."""
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    found = np.asarray(images).astype(np.uint64)
    walking = np.arange(len(found))
    while len(walking):
        left, right = found[walking] >> half, found[walking] & mask
        for turn in reversed(range(ROUNDS)):
            left, right = right ^ (_mixed(left, key + turn) & mask), left
        found[walking] = (left << half) | right
        walking = walking[found[walking] >= count]
    return found.astype(np.int64)


def _mixed(values: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    """`batches._mix` of many values."""
    z = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
