"""Hashes of texts: exact identity, a stable number for sampling and splitting, and MinHash signatures.

Signatures estimate the Jaccard similarity of two texts' shingle sets (Broder, "On the resemblance and
containment of documents", 1997). A shingle is a window of 24 bytes of the folded text that starts at a
character: about five English words or eight Chinese characters, so that one rule serves every language.
"""

from __future__ import annotations

import hashlib
import importlib.util
import string
import struct
from collections.abc import Sequence

import numpy as np

from ownlm.seeds import derive

SHINGLE = 24  # bytes; = 16 + 8, so that the doubling hash needs five steps
PERMUTATIONS = 96  # standard error of the estimate at 0.8: sqrt(0.8 * 0.2 / 96) = 0.04
ROW = 2**16  # shingles hashed at a time: the scratch arrays stay in a core's cache
SEPARATOR = 0xFF  # never part of UTF-8

# Case, spaces and ASCII punctuation do not make two texts different.
_FOLD = bytes(b + 32 if 65 <= b <= 90 else b for b in range(256))
_DELETE = bytes(range(33)) + string.punctuation.encode() + b"\x7f"

_pack = struct.Struct(
    f"{PERMUTATIONS}I"
).pack  # rensa gives lists of integers alone; this is the quickest way
NO_KEY = np.uint64(0)
_MIX_1, _MIX_2 = (
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)  # splitmix64 (Steele et al. 2014)


def text_hash(data: bytes) -> bytes:
    """128-bit BLAKE2b of a text's UTF-8; that any two of 1e9 texts collide has p < 1e-20."""
    return hashlib.blake2b(data, digest_size=16).digest()


def stream_key(seed: int, purpose: str) -> np.uint64:
    """The 64-bit key of one random stream: (seed, purpose)."""
    return np.uint64(derive(seed, purpose))


def mix(values: np.ndarray, key: np.uint64 = NO_KEY) -> np.ndarray:
    """Well mixed 64-bit values (splitmix64's finaliser) of uint64 values under a key."""
    x = values ^ key
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def unit(values: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each uint64 hash: depends on the hash, the seed and the purpose only."""
    fraction: np.ndarray = (mix(values, stream_key(seed, purpose)) >> np.uint64(11)).astype(
        np.float64
    ) / 2.0**53
    return fraction


def minhash_available() -> bool:
    """Whether the library that computes MinHash signatures is installed."""
    return importlib.util.find_spec("rensa") is not None


def signatures(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signatures of texts.

    Args:
        texts: UTF-8.

    Returns:
        (signatures uint32 [rows, PERMUTATIONS], index of each row's text int64 [rows]). A text with fewer
        than SHINGLE bytes after folding has no row: it is too short for a similarity to mean anything.
    """
    separator = bytes([SEPARATOR])
    folded = separator.join(texts).translate(_FOLD, _DELETE)
    codes = np.frombuffer(folded, np.uint8)
    ends = np.append(np.flatnonzero(codes == SEPARATOR), len(codes))
    starts = np.append(0, ends[:-1] + 1)
    windows = ends - starts - (SHINGLE - 1)
    chosen = np.flatnonzero(windows > 0)
    if not len(chosen):
        return np.zeros((0, PERMUTATIONS), np.uint32), np.zeros(0, np.int64)
    # Rows of at most ROW windows: a long text has several.
    several = -(-windows[chosen] // ROW)
    owners = np.repeat(chosen, several)
    nth = np.arange(len(owners)) - np.repeat(np.cumsum(several) - several, several)
    begins = starts[owners] + nth * ROW
    rows = np.stack([begins, np.minimum(begins + ROW, starts[owners] + windows[owners])], axis=1)
    digests = _digest(codes, rows)
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    if len(first) < len(rows):  # the signature of a union is the minimum of the signatures
        digests = np.minimum.reduceat(digests, first, axis=0)
    return digests, owners[first]


def _digest(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Signatures of rows (first window, end) of the folded bytes: uint32 [rows, PERMUTATIONS]."""
    import rensa

    found: list[bytes] = []
    begin = 0
    while begin < len(rows):
        first = int(rows[begin, 0])
        end = max(int(np.searchsorted(rows[:, 1], first + ROW, side="right")), begin + 1)
        stop = int(rows[end - 1, 1])
        hashes, place = _shingle_hashes(codes[first : stop + SHINGLE - 1])
        edges = np.searchsorted(
            place, rows[begin:end] - first
        )  # which of the character-aligned windows belong to each row
        tokens, offsets = _gather(hashes, edges)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(tokens, offsets, PERMUTATIONS, 1)
        found += [_pack(*row) for row in matrix.to_rows()]
        begin = end
    return np.frombuffer(b"".join(found), np.uint32).reshape(-1, PERMUTATIONS)


def _gather(hashes: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of the rows, without the windows between them that cross a separator."""
    counts = edges[:, 1] - edges[:, 0]
    offsets = np.append(0, np.cumsum(counts)).astype(np.uint64)
    if len(edges) == 1:
        return hashes[edges[0, 0] : edges[0, 1]], offsets
    wanted = np.zeros(len(hashes) + 1, np.int8)
    np.add.at(wanted, edges[:, 0], 1)
    np.add.at(wanted, edges[:, 1], -1)
    return hashes[np.cumsum(wanted[:-1], dtype=np.int8).astype(bool)], offsets


def _shingle_hashes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all windows of SHINGLE bytes that start at a character.

    A polynomial hash by doubling: the hash of 2k bytes is `hash(first k) * C_k + hash(last k)` modulo 2^32.

    Returns:
        (hashes uint64 [n], start of each window int64 [n])
    """
    values = codes.astype(np.uint32)
    values *= np.uint32(0x9E3779B1)
    values ^= values >> np.uint32(15)
    eight = values
    for width, factor in ((1, 0x85EBCA6B), (2, 0xC2B2AE35), (4, 0x27D4EB2F), (8, 0x165667B1)):
        values = values[:-width] * np.uint32(factor) + values[width:]
        if width == 4:
            eight = values
    values = values[: len(codes) - SHINGLE + 1] * np.uint32(0xD3A2646C | 1) + eight[16:]
    place = np.flatnonzero((codes[: len(values)] & 0xC0) != 0x80)
    if len(place) < len(values):
        values = values[place]
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x7FEB352D)
    values ^= values >> np.uint32(15)
    return values.astype(np.uint64), place
