"""Exact and near duplicates: which documents are the same text, or nearly, and which of them is kept.

Near duplicates are found by MinHash with locality-sensitive hashing (Leskovec, Rajaraman, Ullman, "Mining
of Massive Datasets", §3.4): a signature is cut into BANDS bands of ROWS values; two texts of similarity s
meet in some band with probability 1 - (1 - s^ROWS)^BANDS (0.8: 99 %, 0.5: 22 %, 0.3: 1 %). Who meets is
compared on the whole signature and linked from THRESHOLD on. Linked documents form clusters; the first in
reading order is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ownlm.corpus.buckets import Buckets
from ownlm.corpus.hashes import PERMUTATIONS, mix

BANDS, ROWS = 16, 6
THRESHOLD = 0.8
assert BANDS * ROWS == PERMUTATIONS
CHUNK = 2**16  # rows looked at together
KEYED = 2**10  # rows whose keys are computed together: the scratch arrays stay in a core's cache


class Clusters:
    """Union–find over documents with the smallest number as root; whole arrays at a time.

    Args:
        parent: int64 [documents], may be a memory-mapped file; overwritten.
    """

    def __init__(self, parent: np.ndarray) -> None:
        self.parent = parent
        for begin in range(0, len(parent), CHUNK):
            end = min(begin + CHUNK, len(parent))
            parent[begin:end] = np.arange(begin, end)

    def roots(self, documents: np.ndarray) -> np.ndarray:
        """The first document of each one's cluster."""
        root = self.parent[documents]
        while True:
            above = self.parent[root]
            if np.array_equal(above, root):
                self.parent[documents] = root
                return root
            root = above

    def unite(self, one: np.ndarray, other: np.ndarray) -> None:
        """Put the documents `one[i]` and `other[i]` into the same cluster."""
        while len(one):
            one, other = self.roots(one), self.roots(other)
            apart = one != other
            one, other = one[apart], other[apart]
            low, high = np.minimum(one, other), np.maximum(one, other)
            np.minimum.at(self.parent, high, low)

    def unite_equal(self, keys: np.ndarray, folder: Path, ignore: int = 0) -> None:
        """Put documents with the same uint64 key into the same cluster; the key `ignore` stands for none."""
        buckets = Buckets(folder, len(keys), len(keys))
        for begin in range(0, len(keys), CHUNK):
            part = np.asarray(keys[begin : begin + CHUNK])
            chosen = np.flatnonzero(part != ignore)
            buckets.add(mix(part[chosen]), chosen + begin)
        for first, previous, document in buckets.pairs():
            for other in (first, previous):
                same = keys[other] == keys[document]
                self.unite(other[same], document[same])


def exact_duplicates(high: np.ndarray, low: np.ndarray, folder: Path) -> np.ndarray:
    """The first document with the same text, for every document.

    Args:
        high, low: the halves of the 128-bit hashes, uint64 [documents].
        folder: for temporary files.

    Returns:
        int64 [documents]; a document that comes first is its own.
    """
    original = np.arange(len(high))
    buckets = Buckets(folder, len(high), len(high))
    for begin in range(0, len(high), CHUNK):
        part = np.asarray(high[begin : begin + CHUNK])
        buckets.add(part, np.arange(begin, begin + len(part)))
    for first, _, document in buckets.pairs():
        equal = (high[first] == high[document]) & (low[first] == low[document])
        original[document[equal]] = first[equal]
        # Two different hashes that agree in their top bits, in one run: rare, so looked at one by one.
        for run in np.unique(first[~equal]).tolist():
            seen: dict[tuple[int, int], int] = {}
            for member in [run, *document[first == run].tolist()]:
                found = seen.setdefault((int(high[member]), int(low[member])), member)
                original[member] = found
    return original


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """One 64-bit key for each band of each signature, uint64 [rows, BANDS]."""
    found = np.empty((len(signatures), BANDS), np.uint64)
    for begin in range(0, len(signatures), KEYED):
        values = signatures[begin : begin + KEYED].reshape(-1, BANDS, ROWS).astype(np.uint64)
        keys = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64), values.shape[:2])
        for column in range(ROWS):
            keys = mix(keys + values[:, :, column])
        found[begin : begin + KEYED] = keys
    return found


def link_near_duplicates(
    signatures: np.ndarray, owners: np.ndarray, clusters: Clusters, similarity: np.ndarray, folder: Path
) -> int:
    """Unite documents whose signatures are similar.

    Args:
        signatures: uint32 [rows, PERMUTATIONS], memory-mapped or not.
        owners: the document of each row, int64 [rows], ascending.
        clusters: where they are united.
        similarity: float32 [documents]; receives the largest similarity to a document it was linked with.
        folder: for temporary files.

    Returns:
        How many pairs were compared.
    """
    buckets = Buckets(folder, len(owners), len(owners) * BANDS)
    for begin in range(0, len(owners), CHUNK):
        keys = band_keys(np.asarray(signatures[begin : begin + CHUNK]))
        rows = np.arange(begin, begin + len(keys))
        for band in range(BANDS):
            buckets.add(keys[:, band], rows)
    compared = 0
    for first, previous, row in buckets.pairs():
        pairs = np.unique(np.concatenate([np.stack([first, row], 1), np.stack([previous, row], 1)]), axis=0)
        for begin in range(0, len(pairs), CHUNK):
            one, other = pairs[begin : begin + CHUNK].T
            compared += _link(signatures, one, other, owners, clusters, similarity)
    return compared


def _link(
    signatures: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    owners: np.ndarray,
    clusters: Clusters,
    similarity: np.ndarray,
) -> int:
    apart = clusters.roots(owners[one]) != clusters.roots(owners[other])
    one, other = one[apart], other[apart]
    alike = np.zeros(len(one), np.float32)
    for begin in range(0, len(one), CHUNK // 8):
        part = slice(begin, begin + CHUNK // 8)
        alike[part] = (signatures[one[part]] == signatures[other[part]]).mean(axis=1)
    linked = alike >= THRESHOLD
    one, other = owners[one[linked]], owners[other[linked]]
    np.maximum.at(similarity, one, alike[linked])
    np.maximum.at(similarity, other, alike[linked])
    clusters.unite(one, other)
    return len(alike)
