"""The one scoring function: pretrain's last line, `evaluate`, `score` and the benchmarks all come from here.

A document is its token ids with the leading <|endoftext|>. Windows of `context` tokens advance by `stride`;
every token after the <|endoftext|> is scored once, with all that stands before it in its window: the first
window scores all its tokens, a later one only those that the windows before it did not reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import Refused, UsageError
from ownlm.engine.engine import Engine
from ownlm.engine.scoring import BATCH_TOKENS, Scored, Scorer, Window, engine_scores, score_windows
from ownlm.evaluation.metrics import FEW, RESAMPLES, Metric, ratio_interval

if TYPE_CHECKING:
    from ownlm.corpus.shards import Split

BLOCK_TOKENS = 256  # what is resampled when there are few documents


@dataclass(frozen=True)
class DocumentScores:
    """Sums over documents, and over blocks of 256 tokens of them.

    Args:
        nll: float64 [documents], nats.
        tokens: int64 [documents], scored tokens (without the leading <|endoftext|>).
        bytes: int64 [documents], UTF-8 bytes of the text.
        block_nll, block_tokens, block_document: [blocks]; a document's bytes are shared out to its blocks in
            proportion to their tokens.
    """

    nll: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    block_nll: npt.NDArray[np.float64]
    block_tokens: npt.NDArray[np.int64]
    block_document: npt.NDArray[np.int64]

    @property
    def unit(self) -> str:
        """What intervals resample: 'documents', or 'blocks of 256 tokens' with fewer than 20 of them."""
        return "documents" if len(self.nll) >= FEW else f"blocks of {BLOCK_TOKENS} tokens"

    def parts(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """(nats, tokens, bytes) of each unit that is resampled."""
        if self.unit == "documents":
            return self.nll, self.tokens, self.bytes
        share = self.block_tokens / np.maximum(self.tokens[self.block_document], 1)
        return self.block_nll, self.block_tokens, self.bytes[self.block_document] * share


class Piece(NamedTuple):
    """Part of a block: `tokens` tokens of a document from `target` on, and their nats."""

    document: int
    target: int
    nll: float
    tokens: int


def score_documents(
    model: Scorer,
    documents: Iterable[npt.NDArray[Any]],
    byte_counts: Sequence[int] | npt.NDArray[Any],
    *,
    context: int,
    stride: int | None = None,
    batch_size: int | None = None,
) -> DocumentScores:
    """Negative log-likelihood of documents.

    Args:
        model: an engine, whose log-probabilities are those of generating, to the bit; or a torch model, which computes
            whole batches of windows at once and adds in another order (tested: 6 digits and more are the same).
        documents: token ids [tokens] of each, with the leading <|endoftext|>.
        byte_counts: UTF-8 bytes of each document's text; looked at when all documents were read.
        context: tokens of a window.
        stride: tokens a window advances; None: half of the context.
        batch_size: full windows that a torch model computes at once; None: 4,096 tokens. The sums do not depend on it
            beyond the last bits of fp32 products (tested: 8 digits and more).
    """
    batch_tokens = BATCH_TOKENS if batch_size is None else batch_size * context
    lengths: list[int] = []
    pieces: list[Piece] = []
    for scored in _scores(model, _windows(documents, context, stride, lengths), batch_tokens=batch_tokens):
        pieces += block_sums(scored.key[0], scored.key[1], scored.logprobs)
    return summed(pieces, np.array(lengths, np.int64), np.asarray(byte_counts, np.int64))


def _scores(
    model: Scorer, windows: Iterable[Window], *, top: int = 0, batch_tokens: int = BATCH_TOKENS
) -> Iterator[Scored]:
    """The scores of windows, in any order."""
    if isinstance(model, Engine):
        yield from engine_scores(model, windows, top=top)
        return
    training = model.training
    model.eval()
    try:
        yield from score_windows(model, windows, batch_tokens=batch_tokens, top=top)
    finally:
        model.train(training)


def _windows(
    documents: Iterable[npt.NDArray[Any]], context: int, stride: int | None, lengths: list[int]
) -> Iterator[Window]:
    """The windows of all documents, keyed (document, first scored token); appends each document's length."""
    for number, ids in enumerate(documents):
        lengths.append(max(len(ids) - 1, 0))
        for start, first, stop in window_bounds(len(ids), context, stride):
            yield Window((number, first), ids[start:stop], first - start)


def window_bounds(tokens: int, context: int, stride: int | None = None) -> Iterator[tuple[int, int, int]]:
    """(start, first scored, stop) of the windows over a document; each token from 1 on is scored once.

    A window reads `context` tokens and predicts the one after each: it spans context + 1.

    Raises:
        UsageError: a stride below 1 or above the context.
    """
    step = max(context // 2, 1) if stride is None else stride
    if not 1 <= step <= context:
        what = f"a stride of {step:,} tokens with a context of {context:,}."
        raise UsageError(what, where="--stride", do=f"--stride between 1 and {context}")
    start, first = 0, 1
    while first < tokens:
        stop = min(start + context + 1, tokens)
        yield start, first, stop
        start, first = start + step, stop


def block_sums(document: int, target: int, logprobs: npt.NDArray[np.float64]) -> Iterator[Piece]:
    """A window's log-probabilities summed between block borders; `target` is the place of its first one, from 1."""
    at = 0
    while at < len(logprobs):
        part = logprobs[at : at + BLOCK_TOKENS - (target + at - 1) % BLOCK_TOKENS]
        yield Piece(document, target + at, -float(part.sum()), len(part))
        at += len(part)


def summed(
    pieces: list[Piece], lengths: npt.NDArray[np.int64], byte_counts: npt.NDArray[np.int64]
) -> DocumentScores:
    """Add up in document order: the order in which batches came back must not show."""
    blocks: dict[tuple[int, int], list[float]] = {}
    for piece in sorted(pieces):
        block = blocks.setdefault((piece.document, (piece.target - 1) // BLOCK_TOKENS), [0.0, 0.0])
        block[0] += piece.nll
        block[1] += piece.tokens
    owners = np.array([document for document, _ in blocks], np.int64)
    sums = np.array(list(blocks.values()), np.float64).reshape(-1, 2)
    nll = np.zeros(len(lengths))
    np.add.at(nll, owners, sums[:, 0])
    return DocumentScores(nll, lengths, byte_counts, sums[:, 0], sums[:, 1].astype(np.int64), owners)


def score_tokens(
    model: Scorer,
    documents: Sequence[npt.NDArray[Any]],
    *,
    context: int,
    stride: int | None = None,
    top: int = 0,
) -> list[Scored]:
    """The log-probability of every token after the first, one `Scored` a document.

    `top`: how many of the most probable tokens it lists for each place.
    """
    lengths: list[int] = []
    parts: list[list[Scored]] = [[] for _ in documents]
    for scored in _scores(model, _windows(documents, context, stride, lengths), top=top):
        parts[scored.key[0]].append(scored)
    return [_joined(number, found, top) for number, found in enumerate(parts)]


def _joined(number: int, parts: list[Scored], top: int) -> Scored:
    if not parts:
        return Scored((number,), 1, np.zeros(0), np.zeros((0, top), np.int64), np.zeros((0, top)))
    parts = sorted(parts, key=lambda part: part.key[1])
    joined = (np.concatenate([getattr(p, n) for p in parts]) for n in ("logprobs", "top_ids", "top_logprobs"))
    return Scored((number,), 1, *joined)


def loss(scores: DocumentScores, seed: int = 0) -> Metric:
    """Cross-entropy, nats a token."""
    nats, tokens, _ = scores.parts()
    return ratio_interval(nats, tokens, seed)


def perplexity(scores: DocumentScores, seed: int = 0) -> Metric:
    """exp(loss), a token."""
    nats, tokens, _ = scores.parts()
    return ratio_interval(nats, tokens, seed, _exp)


def bits_per_byte(scores: DocumentScores, seed: int = 0) -> Metric:
    """Σ nats / ln 2 / Σ UTF-8 bytes: comparable between tokenizers."""
    nats, _, size = scores.parts()
    return ratio_interval(nats / math.log(2), size, seed)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def described(scores: DocumentScores, *, seed: int, dtype: str, seconds: float) -> dict[str, Any]:
    """What stands beside figures: how much text, how the intervals were made, the arithmetic, the speed.

    Args:
        seed: of the bootstrap.
        dtype: of the arithmetic.
        seconds: that computing took.

    Raises:
        Refused: there is no text.
    """
    tokens = int(scores.tokens.sum())
    if not tokens:
        raise Refused("there is no text to evaluate.", where="TEXT", do="files or folders that hold text")
    return {
        "documents": len(scores.nll),
        "bytes": int(scores.bytes.sum()),
        "tokens": tokens,
        "interval": {
            "confidence": 0.95,
            "method": "percentile bootstrap",
            "resampled": scores.unit,
            "resamples": RESAMPLES,
            "seed": seed,
        },
        "dtype": dtype,
        "seconds": seconds,
        "tokens_per_second": tokens / max(seconds, 1e-9),
    }


def summary(scores: DocumentScores, seed: int = 0) -> dict[str, Metric]:
    """loss, perplexity and bits_per_byte, as run.json and `evaluate` hold them."""
    return {
        "loss": loss(scores, seed),
        "perplexity": perplexity(scores, seed),
        "bits_per_byte": bits_per_byte(scores, seed),
    }


def evaluate_split(
    model: Scorer,
    split: Split,
    *,
    context: int,
    seed: int = 0,
    stride: int | None = None,
) -> dict[str, Metric]:
    """`summary` over all documents of a corpus split."""
    documents = (split.document(number) for number in range(split.num_documents))
    scores = score_documents(model, documents, split.document_bytes, context=context, stride=stride)
    return summary(scores, seed)
