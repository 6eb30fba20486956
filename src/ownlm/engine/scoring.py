"""Log-probabilities of given tokens, many windows at a time: through an engine, or by a torch model in whole batches.

B windows, T tokens, C width, V vocabulary. In a batch of the torch model windows of similar length are padded on the
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

from ownlm.console import output as out
from ownlm.console.errors import Refused
from ownlm.engine.engine import Engine
from ownlm.engine.memory_plan import refuse_too_large
from ownlm.engine.opening import takes_native
from ownlm.engine.requests import Request, SamplingSettings
from ownlm.model.transformer import Transformer

Scorer = Engine | Transformer  # what computes log-probabilities of texts

FEW_SEQUENCES = 8  # enough to fill a step; each may take a window of cache
QUEUED = 128  # windows that an engine holds at once: twice as many as run
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


def scorer_of(model: Transformer, dtype: str) -> Scorer:
    """An engine on the native kernels with a copy of the weights, where these compute; else the model itself.

    Args:
        dtype: of the copy.
    """
    device = model.embedding.weight.device
    if not takes_native(None, device):
        return model
    try:
        refuse_too_large(model.config, dtype, device)
        return Engine(model, dtype=dtype, max_sequences=FEW_SEQUENCES)
    except Refused as refusal:
        out.say(f"torch computes the closing figures, equal up to rounding: {refusal.what}")
        return model


def engine_scores(engine: Engine, windows: Iterable[Window], *, top: int = 0) -> Iterator[Scored]:
    """Score windows through an engine; they come back as they are done, each with its key.

    The bits are those that generating the tokens reports, whatever else the engine computes.

    Args:
        top: how many of the most probable tokens to return for each place.

    Raises:
        Refused: a window longer than the engine's. OwnlmError: the model's output is not finite.
    """
    waiting: dict[int, Window] = {}

    def done() -> Iterator[Scored]:
        for event in engine.step_for(waiting.keys()):
            window, found = waiting.pop(event.request_id), event.prompt
            assert found is not None
            yield Scored(window.key, window.first, found.logprobs, found.top_ids, found.top_logprobs)

    try:
        for window in windows:
            settings = SamplingSettings(
                max_new_tokens=0, prompt_logprobs=top, prompt_logprobs_from=window.first
            )
            waiting[engine.submit(Request(window.ids, settings))] = window
            if len(waiting) >= QUEUED:
                yield from done()
        while waiting:
            yield from done()
    finally:
        for request_id in waiting:
            engine.cancel(request_id)


def score_windows(
    model: Transformer,
    windows: Iterable[Window],
    *,
    batch_tokens: int = BATCH_TOKENS,
    top: int = 0,
) -> Iterator[Scored]:
    """Score windows; they come back in another order (by length), each with its key.

    Args:
        batch_tokens: tokens, padding included, that are computed at once. It changes results in the last bits
            only (fp32 matrix kernels add in another order for another number of rows).
        top: how many of the most probable tokens to return for each place.
    """
    # A model of transformers may have a bound of its own: logits of whole batches.
    batch_tokens = min(batch_tokens, getattr(model, "most_tokens", batch_tokens))
    group: list[Window] = []
    held = 0
    for window in windows:
        group.append(window)
        held += len(window.ids)
        if held >= GROUP_BATCHES * batch_tokens:
            yield from _score_group(model, group, batch_tokens, top)
            group, held = [], 0
    yield from _score_group(model, group, batch_tokens, top)


def _score_group(model: Transformer, group: list[Window], batch_tokens: int, top: int) -> Iterator[Scored]:
    group = sorted(group, key=lambda window: len(window.ids), reverse=True)
    start = 0
    while start < len(group):
        rows = max(1, batch_tokens // max(len(group[start].ids) - 1, 1))
        yield from _score_batch(model, group[start : start + rows], top)
        start += rows


@torch.inference_mode()
def _score_batch(model: Transformer, batch: list[Window], top: int) -> list[Scored]:
    device = model.embedding.weight.device
    length = max(len(window.ids) for window in batch) - 1
    inputs_BT = np.zeros((len(batch), length), np.int64)
    wanted_BT = np.zeros((len(batch), length), np.bool_)
    for row, window in enumerate(batch):
        inputs_BT[row, : len(window.ids) - 1] = window.ids[:-1]
        wanted_BT[row, window.first - 1 : len(window.ids) - 1] = True
    targets = torch.from_numpy(np.concatenate([w.ids[w.first :].astype(np.int64) for w in batch])).to(device)
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
