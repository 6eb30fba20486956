"""What goes into the engine and what comes out: requests, sampling settings, events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ownlm.console.errors import UsageError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen, and when a sequence ends.

    Args:
        temperature: 0 takes the most probable token (ties: the lowest id); above 0 samples from
            softmax(logits / temperature).
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of most probable tokens whose probabilities reach this sum
            (Holtzman et al. 2020, arXiv 1904.09751); 1 keeps all.
        min_p: drop tokens less probable than this share of the most probable one (Nguyen et al. 2024,
            arXiv 2407.01082).
        repetition_penalty: logits of tokens that were seen are divided (positive) or multiplied (negative)
            by it (Keskar et al. 2019, arXiv 1909.05858, §4.1).
        max_new_tokens: tokens to generate at most.
        max_length: tokens of prompt and answer together; one of the two, or none: up to the context window.
        stop_token_ids: a sequence ends when one of these is generated.
        seed: of the request; the draw at a position depends on (seed, sequence index, position) alone.
        n: sequences to generate for the prompt.
        logprobs: how many most probable tokens each event lists.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int | None = None
    max_length: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    n: int = 1
    logprobs: int = 0

    def __post_init__(self) -> None:
        for name, good, rule in (
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
            ("max_new_tokens", self.max_new_tokens is None or self.max_new_tokens >= 1, "at least 1"),
            ("max_length", self.max_length is None or self.max_length >= 1, "at least 1"),
            ("n", self.n >= 1, "at least 1"),
            ("seed", 0 <= self.seed < 2**64, "between 0 and 2^64 - 1"),
            ("logprobs", self.logprobs >= 0, "0 or more"),
        ):
            value = getattr(self, name)
            if not good or (isinstance(value, float) and not math.isfinite(value)):
                raise UsageError(f"{value} is not possible; it must be {rule}.", where=name)
        if self.max_new_tokens is not None and self.max_length is not None:
            raise UsageError(
                "set together with max_new_tokens.",
                where="max_length",
                why="max_length counts prompt and answer, max_new_tokens the answer alone.",
                do="only one of them",
            )
        if self.temperature == 0 and (self.top_k > 1 or self.top_p < 1 or self.min_p > 0 or self.n > 1):
            raise UsageError(
                "0 always takes the most probable token.",
                where="temperature",
                why="top_k, top_p, min_p and several sequences would change nothing.",
                do="a temperature above 0, or leave the others out",
            )


@dataclass(frozen=True)
class Request:
    """A prompt of token ids [tokens], at least one, and how to continue it."""

    prompt_ids: Sequence[int]
    settings: SamplingSettings = field(default_factory=SamplingSettings)


@dataclass(frozen=True, slots=True)
class Event:
    """One generated token.

    Args:
        request_id: what `Engine.submit` returned.
        index: which of the request's n sequences.
        token_id: the token; with finish reason "stop" it is the stop token.
        logprob: its log-probability (nats) under the model itself: before penalties, temperature, filters.
        finish_reason: None while the sequence goes on; "stop": a stop token; "length": the asked length or
            the context window is reached.
        top: (token id, log-probability) of the most probable tokens, as many as `logprobs` asks for.
    """

    request_id: int
    index: int
    token_id: int
    logprob: float
    finish_reason: FinishReason | None = None
    top: tuple[tuple[int, float], ...] = ()
