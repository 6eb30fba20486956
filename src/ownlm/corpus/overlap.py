"""How much of the validation text was seen in training: runs of 13 tokens that occur on both sides.

13-grams are the measure of Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C. Each is
hashed to 64 bits; training text is streamed past the hashes of the validation text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.corpus.shards import Corpus, Split
from ownlm.corpus.workers import Workers, advance

NGRAM = 13
MOST = 2**21  # hashes of validation 13-grams that are looked for; beyond it a share of them, chosen by hash
FILTER_BITS = 26  # an 8 MB bitmap lets 3 % of the others pass at 2 million hashes
BLOCK = 2**17  # tokens hashed at a time: the scratch arrays stay in a core's cache
TASK = 2**24  # tokens of training text a task
UNIT = 256  # 13-grams of one statistical unit when there are few documents


@dataclass(frozen=True)
class Search:
    """A stretch of training text in which the hashes are looked for.

    Attributes:
        corpus: folder of the shards.
        manifest: their manifest, as JSON.
        start, stop: tokens of the training split.
        wanted: file of sorted uint64 hashes.
    """

    corpus: Path
    manifest: str
    start: int
    stop: int
    wanted: Path


def gram_hashes(ids: np.ndarray) -> np.ndarray:
    """Hash of every run of NGRAM ids, uint64 [len(ids) - NGRAM + 1]; doubling: 1, 2, 4, 8, then 8 + 4 + 1."""
    one = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    one ^= one >> np.uint64(32)
    two = _joined(one, one, 1, 0x8CB92BA72F3D8DD7)
    four = _joined(two, two, 2, 0xC2B2AE3D27D4EB4F)
    eight = _joined(four, four, 4, 0x165667B19E3779F9)
    twelve = _joined(eight, four, 8, 0xD6E8FEB86659FD93)
    return _joined(twelve, one, 12, 0xA0761D6478BD642F)


def _joined(left: np.ndarray, right: np.ndarray, distance: int, factor: int) -> np.ndarray:
    count = min(len(left), len(right) - distance)
    value: np.ndarray = left[:count] * np.uint64(factor) + right[distance : distance + count]
    return value ^ (value >> np.uint64(29))


def measure(
    corpus: Corpus, folder: Path, workers: Workers, advance: Callable[[int], None]
) -> dict[str, Any] | None:
    """The overlap of a corpus, as its manifest holds it; None without validation or training text.

    Args:
        corpus: complete shards, the manifest perhaps not yet written.
        folder: for temporary files.
        workers: search the training text.
        advance: called with the number of training tokens searched.

    Returns:
        {"ngram", "share": metric, "whole_documents", "sampled": share of the 13-grams that was looked for}.
    """
    train, validation = corpus.split("train"), corpus.split("validation")
    hashes, documents, keep = _validation_grams(validation, corpus.tokenizer.eos_id)
    if not len(hashes) or not train.num_tokens:
        return None
    order = np.argsort(hashes)
    ordered = hashes[order]
    new = np.append(True, ordered[1:] != ordered[:-1])
    wanted = ordered[new]
    path = folder / "validation-grams.bin"
    wanted.tofile(path)
    manifest = json.dumps(corpus.manifest)
    tasks = (
        Search(corpus.path, manifest, start, min(start + TASK + NGRAM - 1, train.num_tokens), path)
        for start in range(0, train.num_tokens, TASK)
    )
    found = np.zeros(len(wanted), bool)
    for bits in workers.map(search, tasks, advance):
        found |= np.unpackbits(bits, count=len(wanted)).astype(bool)
    hit = np.empty(len(hashes), bool)
    hit[order] = found[np.cumsum(new) - 1]
    whole = np.bincount(documents, minlength=1)
    seen = np.bincount(documents, weights=hit, minlength=1)
    return {
        "ngram": NGRAM,
        "share": _interval(hit, documents),
        "whole_documents": int(np.count_nonzero((whole > 0) & (whole == seen))),
        "sampled": keep,
    }


def _validation_grams(split: Split, eos: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(hashes, document of each, share kept) of the 13-grams inside validation documents."""
    divisor = 1
    while split.num_tokens / divisor > MOST:
        divisor *= 2
    ends = split.document_starts.astype(np.int64)
    hashes, documents = [], []
    for start in range(0, split.num_tokens, BLOCK):
        ids = split.read(start, start + BLOCK + NGRAM - 1)
        if len(ids) < NGRAM:
            break
        values = gram_hashes(ids)
        crossing = np.convolve(ids == eos, np.ones(NGRAM, np.int8))[NGRAM - 1 : len(ids)] > 0
        chosen = np.flatnonzero(~crossing & (values & np.uint64(divisor - 1) == 0))
        hashes.append(values[chosen])
        documents.append(np.searchsorted(ends, chosen + start, side="right") - 1)
    if not hashes:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), 1.0
    return np.concatenate(hashes), np.concatenate(documents), 1 / divisor


def search(task: Search) -> np.ndarray:
    """Which of the wanted hashes occur in a stretch of training text, as packed bits."""
    split = Corpus(task.corpus, json.loads(task.manifest)).split("train")
    wanted = np.fromfile(task.wanted, np.uint64)
    shift = np.uint64(64 - FILTER_BITS)
    bitmap = np.zeros(2**FILTER_BITS // 8, np.uint8)
    place = (wanted >> shift).astype(np.int64)
    np.bitwise_or.at(bitmap, place >> 3, (1 << (place & 7)).astype(np.uint8))
    found = np.zeros(len(wanted), bool)
    for start in range(task.start, task.stop - NGRAM + 1, BLOCK):
        values = gram_hashes(split.read(start, min(start + BLOCK + NGRAM - 1, task.stop)))
        place = (values >> shift).astype(np.uint32)
        maybe = values[(bitmap[place >> 3] >> (place & 7).astype(np.uint8)) & 1 == 1]
        at = np.minimum(np.searchsorted(wanted, maybe), len(wanted) - 1)
        found[at[wanted[at] == maybe]] = True
        advance(len(values))
    return np.packbits(found)


def _interval(hit: np.ndarray, documents: np.ndarray) -> dict[str, Any]:
    """The share of hits with its 95 % interval; the 13-grams of one document depend on each other.

    Ratio estimator: variance of sum(hits) / sum(n) over units, Cochran, "Sampling Techniques" (1977), §6.4.
    """
    units = documents
    if documents[-1] - documents[0] + 1 < 20:
        units = np.arange(len(hit)) // UNIT
    n = np.bincount(units)
    hits = np.bincount(units, weights=hit)[n > 0]
    n = n[n > 0]
    share = float(hits.sum() / n.sum())
    count = len(n)
    spread = float(((hits - share * n) ** 2).sum()) * count / max(count - 1, 1)
    error = 1.96 * math.sqrt(spread) / float(n.sum())
    if not spread:  # all or none: Wilson's bound at the edge, with the units as the sample
        error = 1.96**2 / (count + 1.96**2)
    return {
        "value": share,
        "low": max(share - error, 0.0),
        "high": min(share + error, 1.0),
        "n": int(n.sum()),
    }
