"""How many tokens a second an engine prefills and decodes, counted as llama-bench does: no text, no first repetition.

    pp512  prompts of 512 tokens until each has its first token; with a batch, that many prompts at once
    tg128  128 steps that give every sequence one token, once all of them run

At a depth d every sequence has d tokens in the cache before the clock starts. llama-bench leaves sampling out; here
it is in, greedy, because the engine does not give tokens without it.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ownlm.engine.backend import BLOCK, Backend, KeepsOwnCache
from ownlm.engine.blocks import blocks_for
from ownlm.engine.engine import Engine
from ownlm.engine.requests import Event, Request, SamplingSettings
from ownlm.model.config import ModelConfig

Prompt = npt.NDArray[np.int64]

_seeds = itertools.count()  # a prompt that comes again would be found in the cache, not computed


class Case(NamedTuple):
    """One line of the table: so many tokens of each of `batch` sequences, with `depth` tokens before them."""

    kind: Literal["pp", "tg"]
    tokens: int
    batch: int
    depth: int

    @property
    def test(self) -> str:
        """As llama-bench calls it: pp512, tg128."""
        return f"{self.kind}{self.tokens}"

    @property
    def longest(self) -> int:
        """Tokens of a sequence that the context window has to hold."""
        return self.depth + self.tokens + (1 if self.kind == "pp" else 2)


class NotMeasured(Exception):
    """Why a case has no figure."""


@dataclass(frozen=True)
class Speed:
    """What was measured of a case.

    Args:
        samples: tokens/s of each repetition, all sequences together.
        bytes_per_second: of weights and cache that decoding read, by the medians; None: unknown, or a prefill.
    """

    samples: list[float]
    bytes_per_second: float | None

    @property
    def mean(self) -> float:
        """Tokens/s."""
        return statistics.fmean(self.samples)

    @property
    def deviation(self) -> float:
        """Standard deviation of the repetitions; 0 with one."""
        return statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0


def measure(engine: Engine, case: Case, repetitions: int) -> Speed:
    """Run a case `repetitions` times, after one time that does not count.

    Raises:
        NotMeasured: the engine cannot run it as it is meant.
        OwnlmError: the model cannot go on.
    """
    _check(engine, case)
    draw = np.random.default_rng(next(_seeds))
    before = [draw.integers(engine.backend.vocab_size, size=case.depth) for _ in range(case.batch)]
    fresh = case.tokens if case.kind == "pp" else 1

    def prompts() -> list[Prompt]:
        return [np.append(ids, draw.integers(engine.backend.vocab_size, size=fresh)) for ids in before]

    if case.depth:
        _prefill(
            engine, [np.append(ids, 0) for ids in before]
        )  # what was computed of them stays in the cache
    if case.kind == "pp":
        samples = [_prefill(engine, prompts()) for _ in range(repetitions + 1)][1:]
        return Speed([case.tokens * case.batch / seconds for seconds in samples], None)
    runs = [_decode(engine, case, prompts()) for _ in range(repetitions + 1)][1:]
    samples = [case.batch * steps / seconds for steps, seconds in runs]
    # Sequences begin with one token after the depth; each step adds one to what the next has to read.
    context = case.depth + 1 + statistics.fmean(steps for steps, _ in runs) / 2
    read = read_bytes(engine.backend, case.batch, context)
    steps_per_second = statistics.median(samples) / case.batch
    return Speed(samples, None if read is None else read * steps_per_second)


def read_bytes(backend: Backend, batch: int, context: float) -> float | None:
    """Bytes that a decoding step reads: every weight but the rows of an embedding it looks up, and the cache.

    Args:
        batch: sequences. context: tokens of each in the cache.

    Returns:
        None for a model whose parts are not known (one that transformers runs).
    """
    config = getattr(backend, "config", None)
    if not isinstance(config, ModelConfig):
        return None
    counts = config.parameter_counts()
    looked_up = counts["position"] + (0 if config.tie_word_embeddings else counts["embedding"])
    weights = backend.weight_bytes * (1 - looked_up / config.num_parameters())
    layers = range(config.num_hidden_layers)
    attended = sum(min(config.window_of(layer) or context, context) for layer in layers) / len(layers)
    return weights + batch * attended * backend.block_bytes / BLOCK


def _check(engine: Engine, case: Case) -> None:
    """Refuse what would measure something else."""
    if isinstance(engine.backend, KeepsOwnCache):
        if case.kind == "pp" and case.depth:
            raise NotMeasured(f"{engine.backend.name} computes a prompt whole, its depth too")
        return
    needed, there = case.batch * blocks_for(case.longest), engine.plan.blocks
    if needed > there:
        raise NotMeasured(
            f"the cache holds {there * BLOCK:,} tokens, {case.batch} sequences of {case.longest:,} need {needed * BLOCK:,}"
        )


def _prefill(engine: Engine, prompts: list[Prompt]) -> float:
    """Seconds from the first prompt to the last one's first token."""
    settings = SamplingSettings(temperature=0, max_new_tokens=1)
    begin = time.perf_counter()
    left = {engine.submit(Request(prompt, settings)) for prompt in prompts}
    try:
        while left:
            left -= {event.request_id for event in _step(engine)}
        return time.perf_counter() - begin
    finally:
        _cancel(engine, left)


def _decode(engine: Engine, case: Case, prompts: list[Prompt]) -> tuple[int, float]:
    """(steps in which every sequence got one token, their seconds)."""
    settings = SamplingSettings(temperature=0, max_new_tokens=case.tokens + 1)
    waiting = {engine.submit(Request(prompt, settings)) for prompt in prompts}
    mine = set(waiting)
    try:
        while waiting:
            events = _step(engine)
            waiting -= {event.request_id for event in events}
            if any(event.finish_reason for event in events):
                raise NotMeasured(
                    f"{case.batch} sequences never ran at the same time; the first had ended before the last began"
                )
        steps, begin = 0, time.perf_counter()
        while True:
            events, steps = _step(engine), steps + 1
            if any(event.finish_reason for event in events):
                return steps, time.perf_counter() - begin
    finally:
        _cancel(engine, mine)


def _step(engine: Engine) -> list[Event]:
    events = engine.step()
    for event in events:
        if event.error is not None:
            raise event.error
    return events


def _cancel(engine: Engine, requests: set[int]) -> None:
    for request in requests:
        engine.cancel(request)
