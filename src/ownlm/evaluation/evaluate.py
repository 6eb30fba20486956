"""Loss, perplexity and bits per byte of text, beside gzip and xz of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ownlm.console.progress import Progress
from ownlm.evaluation.compression import Compression
from ownlm.evaluation.documents import Encoded
from ownlm.evaluation.scoring import described, score_documents, summary

if TYPE_CHECKING:
    from ownlm.engine.scoring import Scorer


def evaluate_documents(
    model: Scorer,
    documents: Iterable[Encoded],
    *,
    context: int,
    stride: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    total_bytes: int | None = None,
) -> dict[str, Any]:
    """The figures of `ownlm evaluate`.

    Args:
        documents: read once, one after another.
        context, stride, batch_size: see `score_documents`.
        seed: of the bootstrap.
        dtype: of the model's arithmetic, for the record.
        total_bytes: for the progress line, when known.

    Returns:
        loss, perplexity, bits_per_byte (metrics); documents, bytes, tokens; baselines (bits per byte of
        "gzip -9" and "xz -9"); how it was measured.

    Raises:
        Refused: there is no text.
    """
    compression = Compression()
    sizes: list[int] = []  # grows while the documents are read
    spent = 0.0

    def ids_of(items: Iterable[Encoded]) -> Iterator[npt.NDArray[Any]]:
        nonlocal spent
        for item in items:
            begin = time.monotonic()
            compression.feed(item.data)
            sizes.append(len(item.data))
            progress.update(len(item.data))
            spent += time.monotonic() - begin
            yield item.ids

    start = time.monotonic()
    with Progress("evaluating", total_bytes) as progress:
        scores = score_documents(
            model,
            ids_of(documents),
            sizes,
            context=context,
            stride=stride,
            batch_size=batch_size,
        )
    seconds = time.monotonic() - start - spent
    beside = described(scores, seed=seed, dtype=dtype, seconds=seconds)
    return {
        **summary(scores, seed),
        **beside,
        "baselines": compression.bits_per_byte(),
        "context": context,
        "stride": stride or max(context // 2, 1),
    }
