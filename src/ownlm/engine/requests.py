"""What goes into the engine and what comes out: requests, sampling settings, events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import OwnlmError, UsageError

FinishReason = Literal["stop", "length", "error"]
LARGEST_BIAS = 1e4  # beyond it float32 logits lose their digits


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
        repetition_penalty: logits of tokens of prompt and answer are divided (positive) or multiplied (negative)
            by it (Keskar et al. 2019, arXiv 1909.05858, §4.1).
        presence_penalty: taken from the logit of every token that the answer holds already.
        frequency_penalty: taken from a token's logit once for each time that the answer holds it.
        logit_bias: token id -> what is added to its logit; -inf forbids it.
        min_new_tokens: stop tokens are forbidden before so many tokens.
        max_new_tokens: tokens to generate at most; 0 only with `prompt_logprobs`.
        max_length: tokens of prompt and answer together; one of the two, or none: up to the context window.
        stop_token_ids: a sequence ends when one of these is generated.
        seed: of the request; the draw at a position depends on (seed, sequence index, position) alone.
        n: sequences to generate for the prompt.
        logprobs: how many most probable tokens each event lists.
        prompt_logprobs: None, or how many most probable tokens are listed at each place of the prompt, beside the
            log-probability of the token that stands there.
        prompt_logprobs_from: the first place of which that is told, counted from 0; what stands before it is only read.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_new_tokens: int = 0
    max_new_tokens: int | None = None
    max_length: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    n: int = 1
    logprobs: int = 0
    prompt_logprobs: int | None = None
    prompt_logprobs_from: int = 1

    def __post_init__(self) -> None:
        least = 1 if self.prompt_logprobs is None else 0
        for name, good, rule in (
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
            ("presence_penalty", abs(self.presence_penalty) <= LARGEST_BIAS, "a moderate number"),
            ("frequency_penalty", abs(self.frequency_penalty) <= LARGEST_BIAS, "a moderate number"),
            ("min_new_tokens", self.min_new_tokens >= 0, "0 or more"),
            ("max_new_tokens", self.max_new_tokens is None or self.max_new_tokens >= least, "at least 1"),
            ("max_length", self.max_length is None or self.max_length >= 1, "at least 1"),
            ("n", self.n >= 1, "at least 1"),
            ("seed", 0 <= self.seed < 2**64, "between 0 and 2^64 - 1"),
            ("logprobs", self.logprobs >= 0, "0 or more"),
            ("prompt_logprobs", (self.prompt_logprobs or 0) >= 0, "0 or more"),
            ("prompt_logprobs_from", self.prompt_logprobs_from >= 1, "at least 1"),
        ):
            value = getattr(self, name)
            if not good or (isinstance(value, float) and not math.isfinite(value)):
                raise UsageError(f"{value} is not possible; it must be {rule}.", where=name)
        for token, bias in self.logit_bias.items():
            if not (bias == -math.inf or abs(bias) <= LARGEST_BIAS):
                raise UsageError(f"{bias} for token {token} is not possible.", where="logit_bias")
        self._check_together()

    def _check_together(self) -> None:
        if self.max_new_tokens is not None and self.max_length is not None:
            raise UsageError(
                "set together with max_new_tokens.",
                where="max_length",
                why="max_length counts prompt and answer, max_new_tokens the answer alone.",
                do="only one of them",
            )
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise UsageError(
                f"{self.min_new_tokens:,} is more than max_new_tokens, {self.max_new_tokens:,}.",
                where="min_new_tokens",
            )
        if self.temperature == 0 and (self.top_k > 1 or self.top_p < 1 or self.min_p > 0 or self.n > 1):
            raise UsageError(
                "0 always takes the most probable token.",
                where="temperature",
                why="top_k, top_p, min_p and several sequences would change nothing.",
                do="a temperature above 0, or leave the others out",
            )


class Constraint(Protocol):
    """Which tokens may come next, for output of a given form; it advances with the answer."""

    def mask(self) -> npt.NDArray[np.bool_]:
        """[V]: True where a token is allowed; at least one, unless `ended`."""

    def accept(self, token: int) -> None:
        """This token was generated."""

    @property
    def ended(self) -> bool:
        """Whether the form is complete and nothing can follow."""

    def copy(self) -> Constraint:
        """The same state for another sequence."""


@dataclass(frozen=True)
class Request:
    """A prompt of token ids [tokens], at least one, and what is wanted of it.

    Args:
        adapter: 0: none; else a number from `Engine.add_adapter`.
        constraint: restricts the tokens of the answer; copied for each of the n sequences.
        embedding: nothing is generated; the event holds the final hidden state of the last token, or the mean of all.
    """

    prompt_ids: Sequence[int] | npt.NDArray[Any]
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    adapter: int = 0
    constraint: Constraint | None = None
    embedding: Literal["last", "mean"] | None = None


@dataclass(frozen=True)
class TokenScores:
    """Log-probabilities (nats) of N given tokens, and of the most probable ones at their places, best first.

    Args:
        logprobs: float64 [N].
        top_ids: int64 [N, top].
        top_logprobs: float64 [N, top].
    """

    logprobs: npt.NDArray[np.float64]
    top_ids: npt.NDArray[np.int64]
    top_logprobs: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Event:
    """One generated token, or the end of a sequence that generates none.

    Args:
        request_id: what `Engine.submit` returned.
        index: which of the request's n sequences.
        token_id: the token; with finish reason "stop" it is the stop token; -1: none was generated.
        logprob: its log-probability (nats) under the model itself: before penalties, temperature, filters.
        finish_reason: None while the sequence goes on; "stop": a stop token, or the constraint is complete;
            "length": the asked length, the context window or the cache's size is reached; "error": see `error`.
        top: (token id, log-probability) of the most probable tokens, as many as `logprobs` asks for.
        prompt: of the prompt's tokens from the second (`prompt_logprobs_from`) on, in the first event where
            `prompt_logprobs` asks for it.
        embedding: float32 [C].
        error: why the sequence cannot go on.
    """

    request_id: int
    index: int
    token_id: int
    logprob: float
    finish_reason: FinishReason | None = None
    top: tuple[tuple[int, float], ...] = ()
    prompt: TokenScores | None = None
    embedding: npt.NDArray[np.float32] | None = None
    error: OwnlmError | None = None
