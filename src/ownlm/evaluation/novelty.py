"""New or copied: the share of runs of tokens in generated text that do not occur in the training text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.evaluation.metrics import Metric, ratio_interval

RUN_TOKENS = 8
CHUNK_TOKENS = 2**20  # training tokens hashed at once, 8 MB a copy


def unseen_share(
    texts: Sequence[npt.ArrayLike],
    training: Iterable[npt.NDArray[Any]],
    *,
    run: int = RUN_TOKENS,
    seed: int = 0,
) -> Metric:
    """The share of `run`-token runs of the texts that occur nowhere in the training tokens.

    The runs of the texts are hashed to 64 bits and sorted; the training tokens stream past once, so memory
    depends on the texts alone. A wrong hit needs an equal hash: for 10^4 runs in 10^8 tokens its
    probability is below 10^-7.

    Args:
        texts: token ids [tokens] of each text; those shorter than a run count nothing.
        training: the training tokens in consecutive pieces, such as from `token_chunks`.

    Returns:
        The share with a bootstrap interval over texts.
    """
    hashes = [run_hashes(np.asarray(ids), run) for ids in texts]
    wanted = np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)
    found = np.zeros(len(wanted), np.bool_)
    before = np.zeros(0, np.uint32)
    for chunk in training:
        joined = np.concatenate([before, np.asarray(chunk, np.uint32)])
        _mark(found, wanted, run_hashes(joined, run))
        before = joined[max(len(joined) - run + 1, 0) :]
    unseen = [int((~found[np.searchsorted(wanted, own)]).sum()) for own in hashes]
    runs = [len(own) for own in hashes]
    if not sum(runs):
        raise ValueError(f"no text has {run} tokens")
    return ratio_interval(np.array(unseen), np.array(runs), seed)


def token_chunks(split: Any, size: int = CHUNK_TOKENS) -> Iterator[npt.NDArray[Any]]:
    """The tokens of a corpus split in consecutive pieces."""
    for start in range(0, split.num_tokens, size):
        yield split.read(start, start + size)


def run_hashes(ids: npt.NDArray[Any], run: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of every run of `run` consecutive tokens, uint64 [max(0, tokens - run + 1)].

    A polynomial in an odd constant modulo 2^64 over mixed ids.
    """
    count = max(len(ids) - run + 1, 0)
    mixed = _mix(ids.astype(np.uint64))
    result = np.zeros(count, np.uint64)
    for place in range(run):
        result *= np.uint64(0x9E3779B97F4A7C15)
        result += mixed[place : place + count]
    return _mix(result)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The SplitMix64 finaliser (Steele, Lea & Flood 2014): every input bit reaches every output bit."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return result


def _mark(
    found: npt.NDArray[np.bool_], wanted: npt.NDArray[np.uint64], present: npt.NDArray[np.uint64]
) -> None:
    """Set `found` where a wanted (sorted) hash is among those present."""
    if not len(wanted) or not len(present):
        return
    places = np.minimum(np.searchsorted(wanted, present), len(wanted) - 1)
    found[places[wanted[places] == present]] = True
