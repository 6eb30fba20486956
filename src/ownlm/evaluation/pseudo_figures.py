"""The figures of a masked model: pseudo loss, perplexity and bits per byte of documents, beside gzip and xz."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.console.progress import Progress
from ownlm.evaluation.compression import Compression
from ownlm.evaluation.pseudo import PseudoLikelihood
from ownlm.evaluation.scoring import DocumentScores, block_sums, described, summary, summed

NOTE = (
    "Pseudo figures: each token is predicted from what stands before and after it. They compare masked models with "
    "each other, and are not comparable with a causal model's loss or bits per byte, nor with gzip and xz."
)


def document_scores(logprobs: list[npt.NDArray[np.float64]], byte_counts: list[int]) -> DocumentScores:
    """Sums over documents and their blocks of 256 tokens, for the intervals of `summary`."""
    pieces = [piece for number, own in enumerate(logprobs) for piece in block_sums(number, 1, own)]
    lengths = np.array([len(own) for own in logprobs], np.int64)
    return summed(pieces, lengths, np.array(byte_counts, np.int64))


def evaluate_pseudo(
    model: PseudoLikelihood,
    texts: Iterable[str],
    *,
    stride: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    autocast: bool = False,
    total_bytes: int | None = None,
) -> dict[str, Any]:
    """The figures of `ownlm evaluate` on a masked model: names that no causal figure has, and the note on them.

    Returns:
        pseudo_loss, pseudo_perplexity, pseudo_bits_per_byte (metrics); documents, bytes, tokens, unknown_tokens;
        baselines; how it was measured.

    Raises:
        Refused: there is no text.
    """
    compression, logprobs, sizes, unknown = Compression(), [], [], 0
    start = time.monotonic()
    with Progress("evaluating", total_bytes) as progress:
        for text in texts:
            found = model.score(text, stride=stride, batch_size=batch_size, autocast=autocast)
            data = found.whole.text.encode()
            compression.feed(data)
            logprobs.append(found.logprobs)
            sizes.append(len(data))
            if model.unknown_id is not None:
                unknown += int((found.whole.ids == model.unknown_id).sum())
            progress.update(len(data))
    seconds = time.monotonic() - start
    scores = document_scores(logprobs, sizes)
    dtype = "bfloat16 products" if autocast else "float32"
    beside = described(scores, seed=seed, dtype=dtype, seconds=seconds)
    room = model.context - model.around
    return {
        **{f"pseudo_{name}": value for name, value in summary(scores, seed).items()},
        "note": NOTE,
        **beside,
        "unknown_tokens": unknown,
        "baselines": compression.bits_per_byte(),
        "context": model.context,
        "stride": stride or max(room // 2, 1),
    }
