"""BM25 by bm25s: what each term gives each text, computed when the index is made and summed when it is asked.

Robertson et al. 1994 in Lucene's form (Kamphuis et al. 2020): a term gives idf · tf / (tf + k1 (1 - b + b · length /
mean length)), so never more than its idf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import missing_extra

# Measured on questions about stories and encyclopedia articles: docs/log.md.
K1, B = 1.2, 0.8

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bm25:
    """Scores of terms by columns.

    Attributes:
        starts: int64 [terms + 1]; the entries of term t are `starts[t]:starts[t + 1]`.
        texts: int32 [entries], the number of the text, ascending in a column.
        scores: float32 [entries].
        count: how many texts there are.
    """

    starts: Integers
    texts: npt.NDArray[np.int32]
    scores: Floats
    count: int

    def idf(self, term: int | None, prior: int = 0) -> float:
        """How much a term tells at most; None is a term that no text has. `prior`: texts without it that are added."""
        found = 0 if term is None else int(self.starts[term + 1] - self.starts[term])
        return math.log(1 + (self.count + prior - found + 0.5) / (found + 0.5))

    def frequency_part(self, term: int, text: int) -> float:
        """What share of its idf a term gives a text, from 0 to 1."""
        begin, end = self.starts[term : term + 2].tolist()
        place = begin + int(np.searchsorted(self.texts[begin:end], text))
        there = place < end and int(self.texts[place]) == text
        return float(self.scores[place]) / self.idf(term) if there else 0.0

    def sums(self, weights: Mapping[int, float]) -> Floats:
        """The score of every text, float32 [texts], for weighted terms."""
        total = np.zeros(self.count, np.float32)
        for term, weight in weights.items():
            column = slice(self.starts[term], self.starts[term + 1])
            total[self.texts[column]] += np.float32(weight) * self.scores[column]
        return total


def build(ids: npt.NDArray[np.uint32], starts: Integers, terms: int) -> Bm25:
    """Index texts.

    Args:
        ids: uint32, the terms of all texts one after another.
        starts: int64 [texts + 1], where each text begins in `ids`.
        terms: how many terms there are; each occurs somewhere.

    Raises:
        UsageError: bm25s is not installed.
    """
    count = len(starts) - 1
    if not len(ids):
        nothing = np.zeros(0, np.int32)
        return Bm25(np.zeros(terms + 1, np.int64), nothing, nothing.astype(np.float32), count)
    found = _library()(k1=K1, b=B, method="lucene").build_index_from_ids(
        range(terms), _Rows(ids, starts), show_progress=False
    )
    return Bm25(
        found["indptr"].astype(np.int64),
        found["indices"].astype(np.int32),
        found["data"].astype(np.float32),
        count,
    )


def _library() -> Any:
    """The class of bm25s, which is imported late; it would otherwise show bars and set its logger to everything."""
    try:
        import bm25s
    except ImportError:
        raise missing_extra("bm25s", "search", "Searching") from None
    return bm25s.BM25


class _Rows(Sequence[list[int]]):
    """The texts as lists that exist only while they are looked at: all at once they would take ten times the memory."""

    def __init__(self, ids: npt.NDArray[np.uint32], starts: Integers) -> None:
        self.ids, self.starts = ids, starts.tolist()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: Any) -> Any:
        return self.ids[self.starts[number] : self.starts[number + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return (self[number] for number in range(len(self)))
