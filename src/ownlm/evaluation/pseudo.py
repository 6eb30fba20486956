"""Pseudo-log-likelihood: how well a masked model knows a text (Salazar et al. 2020, arXiv 1910.14659, eq. 1).

Each token is masked in turn, and the log-probability of the true one is taken; the sum over the text is its
pseudo-log-likelihood. Every token sees what stands before and after it, so the sum is no probability of the text
and no code length: it is never comparable with a causal model's loss or bits per byte, nor with a compressor's.

B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.corpus.vocabulary import without_surrogates
from ownlm.engine.scoring import BATCH_TOKENS, LOGITS_AT_ONCE


class MaskedScorer(Protocol):
    """What is asked of a masked model.

    A scorer may also have `logits_at(ids_BT, mask_BT, rows_N, columns_N) -> [N, V]`, the logits at these places
    alone: it is then used where one place of a row is wanted.
    """

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""

    @property
    def context(self) -> int:
        """Longest text in tokens, what stands around it included."""

    def logits(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Logits [B, T, V]; `mask_BT` is true where a token stands, false where a row was padded."""


class Whole(NamedTuple):
    """A text as a masked model reads it.

    Args:
        text: it, broken surrogates replaced.
        prefix, suffix: ids that stand before and after ([CLS], [SEP]).
        ids: int64 [tokens] of the text.
        offsets: (start, end) of each token in the text, in characters.
    """

    text: str
    prefix: list[int]
    ids: npt.NDArray[np.int64]
    suffix: list[int]
    offsets: list[tuple[int, int]]


class Part(NamedTuple):
    """A window reads the tokens [start, stop) of a text and scores [first, last) of them."""

    start: int
    stop: int
    first: int
    last: int


def parts(tokens: int, room: int, stride: int | None = None) -> Iterator[Part]:
    """The windows over a text; each token is scored once.

    A text that fits is one window. A longer one is read through windows of `room` tokens that advance by
    `stride`, the last one at the end of the text; of two windows that hold a token the one scores it in which it
    stands farther from an edge: borders lie in the middle of what two neighbours share.

    Args:
        room: tokens of text in a window.
        stride: None: half of the room.

    Raises:
        UsageError: a stride below 1 or above the room.
    """
    step = max(room // 2, 1) if stride is None else stride
    if not 1 <= step <= room:
        what = f"a stride of {step:,} tokens with {room:,} tokens of text in a window."
        raise UsageError(what, where="--stride", do=f"--stride between 1 and {room}")
    last_start = max(tokens - room, 0)
    starts = [*range(0, last_start, step), last_start] if tokens else []
    first = 0
    for number, start in enumerate(starts):
        stop = min(start + room, tokens)
        last = tokens if number == len(starts) - 1 else (starts[number + 1] + stop) // 2
        yield Part(start, stop, first, last)
        first = last


@dataclass(frozen=True)
class TextScores:
    """Each token of a text given all others in its window.

    Args:
        whole: the text and its tokens.
        logprobs: float64 [tokens], nats.
        top_ids, top_logprobs: [tokens, top]: the most probable tokens at each place, best first.
    """

    whole: Whole
    logprobs: npt.NDArray[np.float64]
    top_ids: npt.NDArray[np.int64]
    top_logprobs: npt.NDArray[np.float64]


@dataclass(frozen=True)
class PseudoLikelihood:
    """A scorer and its tokenizer.

    Args:
        context: tokens of a window, at most the scorer's.
        device: where the scorer takes its ids.
        mask_id: of the mask token.
        unknown_id: of the token for what the vocabulary lacks, if it has one.
    """

    scorer: MaskedScorer
    tokenizer: Tokenizer
    context: int
    device: str
    mask_id: int
    unknown_id: int | None = None

    def whole(self, text: str, *, specials: bool = False) -> Whole:
        """A text as tokens; `specials`: honour special tokens that it spells."""
        text = without_surrogates(text)
        encoding = self.tokenizer.encode_whole(text, specials=specials)
        put = np.array(encoding.special_tokens_mask, bool)
        inner = np.flatnonzero(~put)
        first, last = (int(inner[0]), int(inner[-1]) + 1) if len(inner) else (len(put), len(put))
        ids = encoding.ids
        return Whole(
            text, ids[:first], np.array(ids[first:last], np.int64), ids[last:], encoding.offsets[first:last]
        )

    @cached_property
    def around(self) -> int:
        """Tokens that stand around every text."""
        return self.tokenizer.backend.num_special_tokens_to_add(is_pair=False)

    def score(
        self,
        text: str,
        *,
        stride: int | None = None,
        batch_size: int | None = None,
        top: int = 0,
        autocast: bool = False,
    ) -> TextScores:
        """The log-probability of every token of a text, each masked in turn.

        Args:
            stride: tokens of text that the window advances over a long text; None: half of what it holds.
            batch_size: rows (of one masked token each) computed at once; None: 4,096 tokens.
            top: how many of the most probable tokens to list for each place.
            autocast: bf16 products (about three digits).
        """
        whole = self.whole(text)
        room = self.context - self.around
        if room < 1:
            raise Refused(f"a window of {self.context} tokens holds no text.", where="context")
        found: list[tuple[Any, Any, Any]] = [(np.zeros(0), np.zeros((0, top), np.int64), np.zeros((0, top)))]
        for part in parts(len(whole.ids), room, stride):
            window = whole.ids[part.start : part.stop].tolist()
            row = torch.tensor([*whole.prefix, *window, *whole.suffix])
            columns = torch.arange(part.first, part.last) - part.start + len(whole.prefix)
            rows = batch_size or max(1, BATCH_TOKENS // len(row))
            found += [self._masked(row, some, top, autocast) for some in columns.split(rows)]
        logprobs, top_ids, top_logprobs = (np.concatenate(kept) for kept in zip(*found))
        return TextScores(whole, logprobs, top_ids, top_logprobs)

    @torch.inference_mode()
    def _masked(self, row_T: Tensor, columns_B: Tensor, top: int, autocast: bool) -> tuple[Any, Any, Any]:
        """One copy of the row for each column, that column masked: its log-probability and the best tokens."""
        rows_B = torch.arange(len(columns_B))
        ids_BT = row_T.repeat(len(columns_B), 1)
        ids_BT[rows_B, columns_B] = self.mask_id
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=autocast):
            logits_BV = self.logits_at(ids_BT, rows_B, columns_B)
        logprobs_BV = logits_BV.float().log_softmax(-1)
        own = logprobs_BV[rows_B, row_T[columns_B]].double()
        best, ids = logprobs_BV.topk(min(top, logprobs_BV.shape[-1]), dim=-1)
        return own.numpy(), ids.numpy(), best.double().numpy()

    def logits_at(self, ids_BT: Tensor, rows_N: Tensor, columns_N: Tensor) -> Tensor:
        """Logits [N, V] on the CPU at the places (row, column) of full rows."""
        ids_BT, rows_N, columns_N = (t.to(self.device) for t in (ids_BT, rows_N, columns_N))
        mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        if hasattr(self.scorer, "logits_at"):
            return self.scorer.logits_at(ids_BT, mask_BT, rows_N, columns_N).cpu()
        # All places' logits of a row come at once: few rows together, or they would fill the memory.
        together = max(1, LOGITS_AT_ONCE // (ids_BT.shape[1] * self.scorer.vocab_size))
        found = []
        for at in range(0, len(ids_BT), together):
            here = (rows_N >= at) & (rows_N < at + together)
            logits = self.scorer.logits(ids_BT[at : at + together], mask_BT[at : at + together])
            found.append(logits[rows_N[here] - at, columns_N[here]].cpu())
        return torch.cat(found)
