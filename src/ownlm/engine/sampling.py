"""Choosing the next token of one sequence from its logits. All in numpy, a row at a time: what else is in the
batch cannot change a draw.

The order of the steps is that of Hugging Face's `generate`: penalties, bias and forbidden tokens, temperature,
top-k, top-p, min-p.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import OwnlmError
from ownlm.engine.requests import SamplingSettings

Logits = npt.NDArray[np.float32]
_MASK = 2**64 - 1


def choose(
    logits: Logits,
    settings: SamplingSettings,
    seen: npt.NDArray[np.integer],
    index: int,
    prompt_length: int | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> int:
    """The next token of a sequence.

    Args:
        logits: [V], of the position after the last token.
        seen: ids of the prompt and of what was generated, in order [tokens].
        index: number of the sequence in its request.
        prompt_length: how many of `seen` are the prompt; None: all.
        allowed: [V], False where a constraint forbids a token.

    Raises:
        OwnlmError: the model gave NaN, or everything is forbidden.
    """
    answer = seen[len(seen) if prompt_length is None else prompt_length :]
    logits = adjusted(logits, settings, seen, answer, allowed)
    if settings.temperature == 0 or settings.top_k == 1:
        return int(logits.argmax())
    weights = filtered_weights(logits, settings)
    sums = weights.cumsum()
    draw = uniform(settings.seed, index, len(seen)) * sums[-1]
    # The first token whose cumulated weight exceeds the draw: not one of weight 0. The product may round up.
    return int(sums.searchsorted(min(draw, np.nextafter(sums[-1], 0)), side="right"))


def adjusted(
    logits: Logits,
    settings: SamplingSettings,
    seen: npt.NDArray[np.integer],
    answer: npt.NDArray[np.integer],
    allowed: npt.NDArray[np.bool_] | None = None,
) -> Logits:
    """Logits [V] after penalties, bias and what is forbidden.

    Raises:
        OwnlmError: they are not finite, or nothing is left.
    """
    check_finite(logits)
    if settings.repetition_penalty != 1:
        logits = penalised(logits, seen, settings.repetition_penalty)
    if len(answer) and (settings.presence_penalty or settings.frequency_penalty):
        logits = logits.copy()
        tokens, counts = np.unique(answer, return_counts=True)
        taken = settings.presence_penalty + settings.frequency_penalty * counts
        logits[tokens] -= taken.astype(np.float32)
    if settings.logit_bias:
        logits = logits.copy()
        logits[list(settings.logit_bias)] += np.array(list(settings.logit_bias.values()), np.float32)
    if allowed is not None:
        logits = np.where(allowed, logits, np.float32(-np.inf))
    if settings.stop_token_ids and len(answer) < settings.min_new_tokens:
        stops = list(settings.stop_token_ids)
        if (
            allowed is None or allowed.sum() > allowed[stops].sum()
        ):  # a constraint may leave nothing but the end
            logits = logits.copy()
            logits[stops] = -np.inf
    if logits.max() == -math.inf:
        raise OwnlmError(
            "no token may come next.",
            why="logit_bias, min_new_tokens and the constraint together forbid all of them.",
            do="fewer forbidden tokens",
        )
    return logits


def penalised(logits: Logits, seen: npt.NDArray[np.integer], penalty: float) -> Logits:
    """Logits [V] with those of the seen tokens divided (positive) or multiplied (negative) by the penalty."""
    changed = logits.copy()
    known = logits[seen]
    changed[seen] = np.where(known < 0, known * np.float32(penalty), known / np.float32(penalty))
    return changed


def filtered_weights(logits: Logits, settings: SamplingSettings) -> npt.NDArray[np.float64]:
    """Unnormalised probabilities [V] after temperature, top-k, top-p and min-p; what was filtered has 0."""
    scaled = logits.astype(np.float64) / settings.temperature
    weights: npt.NDArray[np.float64] = np.exp(scaled - scaled.max())
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


def log_normaliser(logits: Logits) -> float:
    """log Σ exp(logits), nats: a token's log-probability is its logit minus this. Sums in float64.

    Raises:
        OwnlmError: the logits are not finite.
    """
    highest = check_finite(logits)
    return highest + math.log(float(np.exp(logits - np.float32(highest)).sum(dtype=np.float64)))


def most_probable(
    logits: Logits, normaliser: float, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Ids and log-probabilities [count] of the most probable tokens, best first; equal ones: lower ids first."""
    count = min(count, len(logits))
    if count == 0:
        return np.zeros(0, np.int64), np.zeros(0)
    least = np.partition(logits, -count)[-count]
    found = np.flatnonzero(logits >= least)
    ids = found[np.argsort(-logits[found], kind="stable")][:count]
    return ids, logits[ids].astype(np.float64) - normaliser


def check_finite(logits: Logits) -> float:
    """The largest logit.

    Raises:
        OwnlmError: NaN or infinity is among them.
    """
    highest = float(logits.max())
    if not math.isfinite(highest):
        raise OwnlmError(
            "the model's output is not a finite number.",
            why="Its weights are damaged, or training diverged.",
            do="ownlm runs, and an earlier checkpoint",
        )
    return highest
