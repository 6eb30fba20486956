"""Choosing the next token of one sequence from its logits. All in numpy, a row at a time: what else is in the
batch cannot change a draw.

The order of the steps is that of Hugging Face's `generate`: repetition penalty, temperature, top-k, top-p,
min-p.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import OwnlmError
from ownlm.engine.requests import SamplingSettings

Logits = npt.NDArray[np.float32]
_MASK = 2**64 - 1


def choose(logits: Logits, settings: SamplingSettings, seen: npt.NDArray[np.int64], index: int) -> int:
    """The next token of a sequence.

    Args:
        logits: [V], of the position after the last token.
        seen: ids of the prompt and of what was generated, in order [tokens].
        index: number of the sequence in its request.

    Raises:
        OwnlmError: the model gave NaN.
    """
    if settings.repetition_penalty != 1:
        logits = penalised(logits, seen, settings.repetition_penalty)
    if settings.temperature == 0 or settings.top_k == 1:
        token = int(logits.argmax())
        _check(float(logits[token]))
        return token
    weights = filtered_weights(logits, settings)
    sums = weights.cumsum()
    draw = uniform(settings.seed, index, len(seen)) * sums[-1]
    # The first token whose cumulated weight exceeds the draw: not one of weight 0. The product may round up.
    return int(sums.searchsorted(min(draw, np.nextafter(sums[-1], 0)), side="right"))


def penalised(logits: Logits, seen: npt.NDArray[np.int64], penalty: float) -> Logits:
    """Logits [V] with those of the seen tokens divided (positive) or multiplied (negative) by the penalty."""
    changed = logits.copy()
    known = logits[seen]
    changed[seen] = np.where(known < 0, known * np.float32(penalty), known / np.float32(penalty))
    return changed


def filtered_weights(logits: Logits, settings: SamplingSettings) -> npt.NDArray[np.float64]:
    """Unnormalised probabilities [V] after temperature, top-k, top-p and min-p; what was filtered has 0."""
    scaled = logits.astype(np.float64) / settings.temperature
    highest = float(scaled.max())
    _check(highest)
    weights = np.exp(scaled - highest)
    if 0 < settings.top_k < len(weights):
        kth = np.partition(weights, -settings.top_k)[-settings.top_k]
        weights[weights < kth] = 0
    if settings.top_p < 1:
        weights[~_nucleus(weights, settings.top_p)] = 0
    if settings.min_p > 0:
        weights[weights < settings.min_p] = 0  # the most probable token has weight 1
    return weights


def _nucleus(weights: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.bool_]:
    """True for the smallest set of largest weights whose share reaches top_p; ties: lower ids first."""
    order = np.argsort(-weights, kind="stable")
    before = weights[order].cumsum() - weights[order]
    keep = np.zeros(len(weights), np.bool_)
    keep[order[before < top_p * weights.sum()]] = True
    keep[order[0]] = True
    return keep


def uniform(seed: int, index: int, position: int) -> float:
    """A number in [0, 1), a function of its arguments alone: no state, so any order of draws gives the same.

    Three rounds of the SplitMix64 finaliser (Steele, Lea & Flood 2014), one for each argument.
    """
    mixed = _mix(_mix(_mix(seed) ^ index) ^ position)
    return (mixed >> 11) * 2.0**-53


def _mix(value: int) -> int:
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def log_probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """log softmax [V] in float64, nats."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return shifted - np.log(np.exp(shifted).sum())


def most_probable(logprobs: npt.NDArray[np.float64], count: int) -> tuple[tuple[int, float], ...]:
    """(token id, log-probability) of the `count` most probable tokens; equal ones: lower ids first."""
    if count == 0:
        return ()
    ids = np.argsort(-logprobs, kind="stable")[:count]
    return tuple((int(i), float(logprobs[i])) for i in ids)


def _check(highest: float) -> None:
    if not math.isfinite(highest):
        raise OwnlmError(
            "the model's output is not a finite number.",
            why="Its weights are damaged, or training diverged.",
            do="ownlm runs, and an earlier checkpoint",
        )
