"""Log-probabilities of given tokens, many windows at a time.

B windows, T tokens, C width, V vocabulary. Windows of similar length are computed together and padded on the
right: a causal model's answer for a token does not depend on what stands after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ownlm.model.transformer import Transformer

BATCH_TOKENS = 4096  # enough rows for a matrix kernel to reach its speed
GROUP_BATCHES = 32  # batches whose windows are sorted by length together: bounds memory on endless input
LOGITS_AT_ONCE = 2**23  # fp32 numbers, 32 MB: a large vocabulary must not decide the memory


@dataclass(frozen=True)
class Window:
    """Tokens in order, at most the context + 1 of them, of which those from `first` (>= 1) on are scored."""

    key: tuple[int, ...]
    ids: npt.NDArray[Any]
    first: int


@dataclass(frozen=True)
class Scored:
    """The scored tokens of a window, N = len(ids) - first of them.

    Args:
        logprobs: float64 [N], nats.
        top_ids: int64 [N, top]: the most probable tokens at each place, best first.
        top_logprobs: float64 [N, top].
    """

    key: tuple[int, ...]
    first: int
    logprobs: npt.NDArray[np.float64]
    top_ids: npt.NDArray[np.int64]
    top_logprobs: npt.NDArray[np.float64]


def score_windows(
    model: Transformer,
    windows: Iterable[Window],
    *,
    batch_tokens: int = BATCH_TOKENS,
    top: int = 0,
    autocast: bool = False,
) -> Iterator[Scored]:
    """Score windows; they come back in another order (by length), each with its key.

    Args:
        batch_tokens: tokens, padding included, that are computed at once. It changes results in the last bits
            only (fp32 matrix kernels add in another order for another number of rows).
        top: how many of the most probable tokens to return for each place.
        autocast: bf16 matrix products (less exact, about three digits).
    """
    # A model of transformers may have a bound of its own: logits of whole batches.
    batch_tokens = min(batch_tokens, getattr(model, "most_tokens", batch_tokens))
    group: list[Window] = []
    held = 0
    for window in windows:
        group.append(window)
        held += len(window.ids)
        if held >= GROUP_BATCHES * batch_tokens:
            yield from _score_group(model, group, batch_tokens, top, autocast)
            group, held = [], 0
    yield from _score_group(model, group, batch_tokens, top, autocast)


def _score_group(
    model: Transformer, group: list[Window], batch_tokens: int, top: int, autocast: bool
) -> Iterator[Scored]:
    group = sorted(group, key=lambda window: len(window.ids), reverse=True)
    start = 0
    while start < len(group):
        rows = max(1, batch_tokens // max(len(group[start].ids) - 1, 1))
        yield from _score_batch(model, group[start : start + rows], top, autocast)
        start += rows


@torch.inference_mode()
def _score_batch(model: Transformer, batch: list[Window], top: int, autocast: bool) -> list[Scored]:
    device = model.embedding.weight.device
    length = max(len(window.ids) for window in batch) - 1
    inputs_BT = np.zeros((len(batch), length), np.int64)
    wanted_BT = np.zeros((len(batch), length), np.bool_)
    for row, window in enumerate(batch):
        inputs_BT[row, : len(window.ids) - 1] = window.ids[:-1]
        wanted_BT[row, window.first - 1 : len(window.ids) - 1] = True
    targets = torch.from_numpy(np.concatenate([w.ids[w.first :].astype(np.int64) for w in batch])).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        hidden_BTC = model.hidden(torch.from_numpy(inputs_BT).to(device))
        hidden_NC = hidden_BTC[torch.from_numpy(wanted_BT).to(device)]
        logprobs, top_ids, top_logprobs = _scored(model, hidden_NC, targets, top)
    ends = np.cumsum([len(window.ids) - window.first for window in batch])[:-1]
    parts = zip(batch, np.split(logprobs, ends), np.split(top_ids, ends), np.split(top_logprobs, ends))
    return [Scored(window.key, window.first, own, ids, best) for window, own, ids, best in parts]


def _scored(
    model: Transformer, hidden_NC: Tensor, targets_N: Tensor, top: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Log-probabilities [N] of the targets, and ids and log-probabilities [N, top] of the best tokens."""
    rows = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    logprobs, ids, best = [], [], []
    for hidden, targets in zip(hidden_NC.split(rows), targets_N.split(rows)):
        logits = model.head(hidden).float()
        total = logits.logsumexp(-1, keepdim=True)
        logprobs.append((logits.gather(-1, targets[:, None]) - total)[:, 0].double())
        values, indices = logits.topk(min(top, logits.shape[-1]), dim=-1)
        ids.append(indices)
        best.append((values - total).double())
    return torch.cat(logprobs).cpu().numpy(), torch.cat(ids).cpu().numpy(), torch.cat(best).cpu().numpy()
