"""The engine: requests join and leave at any step, and every step gives each running sequence one token."""

from __future__ import annotations

import itertools
import threading
from collections import abc
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import OwnlmError, Refused
from ownlm.engine.admission import checked_ids, longest_text
from ownlm.engine.backend import Backend, KeepsOwnCache, LoraWeights, Piece
from ownlm.engine.blocks import BlockPool
from ownlm.engine.memory_plan import plan_for
from ownlm.engine.opening import backend_of
from ownlm.engine.requests import Event, Request, SamplingSettings, TokenScores
from ownlm.engine.results import add_states, next_event, piece_of, read_event, score_prompt
from ownlm.engine.scheduler import Scheduler, Usage
from ownlm.engine.sequences import Sequence
from ownlm.model.transformer import Transformer

MAX_SEQUENCES = 64  # that run at the same time; the others wait
STEP_TOKENS = 512  # prompts hold up the sequences that generate by no more than this a step
LOGITS_AT_ONCE = 2**24  # fp32 numbers, 64 MB: of prompts whose every token is scored


class Engine:
    """Generates and scores with one model; knows only token ids.

    Several callers may share one, from one thread or from many: each takes its own events with `step_for`.

    Args:
        model: the weights; neither changed nor moved (a copy is made for another dtype or device). Or a backend
            that has its own: then dtype, device and max_context are its own, too.
        dtype: "auto": the weights' own (with torch on a CPU without bf16 arithmetic: float32); "float32",
            "bfloat16", with the native kernels also "int8" and "int4".
        device: "cpu", "cuda", "mps"; None: where the model is.
        max_context: the window, prompt and answer together; None: what the model was made for.
        cache_memory: bytes of keys and values; None: half of the free memory, at most what `max_sequences` full
            windows take.
        backend: "native", "torch"; None: native on a CPU where the kernels were built.
        max_sequences: sequences that run at the same time; further ones wait.
        step_tokens: tokens that are computed at once: longer prompts take several steps.
        prefix_cache: keep what was computed of a text for others that begin with it.

    Attributes:
        backend: what computes.
        plan: memory by part; its text is one line.
    """

    def __init__(
        self,
        model: Transformer | Backend,
        *,
        dtype: str = "auto",
        device: str | None = None,
        max_context: int | None = None,
        cache_memory: int | None = None,
        backend: str | None = None,
        max_sequences: int = MAX_SEQUENCES,
        step_tokens: int = STEP_TOKENS,
        prefix_cache: bool = True,
    ) -> None:
        self.backend: Backend = (
            backend_of(model, dtype=dtype, device=device, max_context=max_context, backend=backend)
            if isinstance(model, Transformer)
            else model
        )
        self.max_context = self.backend.max_context
        outputs = min(step_tokens, max(1, LOGITS_AT_ONCE // self.backend.vocab_size))
        self.plan = plan_for(
            self.backend,
            tokens=max(step_tokens, max_sequences),
            outputs=outputs + max_sequences,
            max_sequences=max_sequences,
            cache_memory=cache_memory,
        )
        pool = None
        if self.plan.blocks:
            pool = BlockPool(self.plan.blocks, sharing=prefix_cache)
            self.backend.reserve(self.plan.blocks)
        self._scheduler = Scheduler(
            pool, step_tokens=step_tokens, step_outputs=outputs, max_sequences=max_sequences
        )
        self._ids, self._keys = itertools.count(1), itertools.count(1)
        self._adapters: set[int] = set()
        self._live: dict[int, list[Sequence]] = {}
        self._lock = threading.RLock()
        self._kept: dict[int, list[Event]] = {}  # events of requests whose caller did not ask yet

    def submit(self, request: Request) -> int:
        """Queue a request; its events come from `step`.

        Raises:
            UsageError: no prompt token, a token the model does not have, a `max_length` without room.
            Refused: what can never fit into the context window or the cache (never cut silently).
        """
        ids = checked_ids(request, self.backend.vocab_size, self._adapters)
        window, capacity = self._window(len(ids)), self._scheduler.capacity
        limit = longest_text(request, len(ids), window, self.max_context, capacity)
        with self._lock:
            number = next(self._ids)
            constraint = request.constraint.copy() if request.constraint is not None else None
            first = Sequence(
                next(self._keys), number, 0, request.settings, ids, len(ids), limit, request.adapter, constraint,
                request.embedding,
            )  # fmt: skip
            first.forks = [first.forked(next(self._keys), index) for index in range(1, request.settings.n)]
            self._live[number] = [first, *first.forks]
            self._scheduler.waiting.append(first)
            return number

    def longest(self, prompt_tokens: int) -> int:
        """Tokens of prompt and answer together at most, for a prompt of this length."""
        return min(self._window(prompt_tokens), self._scheduler.capacity + 1)

    def _window(self, prompt_tokens: int) -> int:
        if isinstance(self.backend, KeepsOwnCache):
            return self.backend.longest(prompt_tokens)
        return self.max_context

    @property
    def busy(self) -> bool:
        """Whether a sequence runs or waits."""
        return bool(self._live)

    @property
    def usage(self) -> Usage:
        """How many sequences run, how full the cache is, and what happened so far."""
        return self._scheduler.usage()

    def step(self) -> list[Event]:
        """One token for every running sequence, and as much of the prompts as a step has room for."""
        with self._lock:
            chunks = self._scheduler.schedule()
            copies = self._scheduler.copies
            while copies:
                self.backend.copy_block(*copies[0])
                del copies[0]
            events: list[Event] = []
            for embedding in (False, True):
                group = [chunk for chunk in chunks if (chunk.sequence.embedding is not None) == embedding]
                if not group:
                    continue
                pieces = [piece_of(chunk) for chunk in group]
                results = self.backend.hidden(pieces) if embedding else self.backend.compute(pieces)
                for chunk, piece, rows in zip(group, pieces, results):
                    self._scheduler.computed(chunk)
                    events += self._taken(chunk.sequence, piece, rows)
            return events

    def step_for(self, request_ids: abc.Set[int]) -> list[Event]:
        """The next events of these requests; those of others are kept until their callers ask.

        Returns:
            At least one event while one of the requests has not ended; [] after that.

        Raises:
            OwnlmError: one of these requests cannot go on; it has ended.
        """
        while True:
            with self._lock:
                mine = [
                    event for number in self._kept.keys() & request_ids for event in self._kept.pop(number)
                ]
                for event in mine:
                    if event.error is not None:
                        self.cancel(event.request_id)
                        raise event.error
                if mine or self._live.keys().isdisjoint(request_ids):
                    return mine
                for event in self.step():
                    self._kept.setdefault(event.request_id, []).append(event)

    def _taken(self, sequence: Sequence, piece: Piece, rows: npt.NDArray[np.float32]) -> list[Event]:
        """What the results [O, V or C] of a piece give."""
        try:
            if sequence.embedding is not None:
                add_states(sequence, rows)
            elif sequence.settings.prompt_logprobs is not None:
                score_prompt(sequence, piece, rows)
        except OwnlmError as error:
            return [self._failed(sequence, error)]
        if sequence.missing:
            return []
        if sequence.embedding is not None or sequence.scored_only:
            self._end(sequence)
            return [read_event(sequence)]
        forks = self._scheduler.fork(sequence) if sequence.forks else []
        return [self._advance(one, rows[-1]) for one in (sequence, *forks)]

    def _advance(self, sequence: Sequence, logits: npt.NDArray[np.float32]) -> Event:
        """Choose the next token of a sequence; give its blocks back when it ends."""
        try:
            event = next_event(sequence, logits)
        except OwnlmError as error:
            return self._failed(sequence, error)
        if event.finish_reason is not None:
            self._end(sequence)
        return event

    def _failed(self, sequence: Sequence, error: OwnlmError) -> Event:
        self._end(sequence, damaged=True)
        return Event(sequence.request_id, sequence.index, -1, 0.0, "error", error=error)

    def _end(self, sequence: Sequence, *, damaged: bool = False) -> None:
        if sequence.state == "running":
            self.backend.release(sequence.key)
        self._scheduler.end(sequence, damaged=damaged)
        left = self._live[sequence.request_id]
        left.remove(sequence)
        if not left:
            del self._live[sequence.request_id]

    def cancel(self, request_id: int, index: int | None = None) -> bool:
        """End a request, or one of its sequences, without further events; False when nothing was left."""
        with self._lock:
            meant = [s for s in self._live.get(request_id, ()) if index in (None, s.index)]
            for sequence in reversed(meant):
                self._end(sequence)
            kept = self._kept.pop(request_id, [])
            if index is not None and any(event.index != index for event in kept):
                self._kept[request_id] = [event for event in kept if event.index != index]
            return bool(meant)

    def generate(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Submit requests and yield their events until all have ended; closing the iterator cancels them.

        Raises:
            OwnlmError: one of them cannot go on.
        """
        mine: set[int] = set()
        try:
            for request in requests:
                mine.add(self.submit(request))
            while events := self.step_for(mine):
                yield from events
        finally:
            for request_id in mine:
                self.cancel(request_id)

    def stream(self, request: Request) -> Iterator[Event]:
        """The events of one request as they come."""
        return self.generate([request])

    def score(
        self, sequences: Iterable[abc.Sequence[int]], *, top: int = 0, adapter: int = 0
    ) -> list[TokenScores]:
        """Log-probability of every token from the second on; bit-equal to what generating it reports.

        Args:
            sequences: token ids; each at least one token and at most one more than the context window.
            top: how many of the most probable tokens are listed for each place.

        Raises:
            Refused: a sequence longer than the window (`ownlm.evaluation.scoring` slides over long texts).
        """
        settings = SamplingSettings(max_new_tokens=0, prompt_logprobs=top)
        found = self._collected(Request(ids, settings, adapter) for ids in sequences)
        return [event.prompt for event in found if event.prompt is not None]

    def embed(
        self,
        sequences: Iterable[abc.Sequence[int]],
        pooling: Literal["last", "mean"] = "mean",
        adapter: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Final hidden states of texts: of the last token, or the mean over all. float32 [sequences, C]."""
        found = self._collected(Request(ids, adapter=adapter, embedding=pooling) for ids in sequences)
        states = [event.embedding for event in found if event.embedding is not None]
        return np.stack(states) if states else np.zeros((0, self.backend.hidden_size), np.float32)

    def _collected(self, requests: Iterable[Request]) -> list[Event]:
        """The single events of requests that generate nothing, in order."""
        return sorted(self.generate(requests), key=lambda event: event.request_id)

    def add_adapter(self, adapter: LoraWeights) -> int:
        """Keep low-rank weights beside the base; gives the number that requests name."""
        with self._lock:
            number = self.backend.add_adapter(adapter)
            self._adapters.add(number)
            return number

    def remove_adapter(self, number: int) -> None:
        """Forget an adapter.

        Raises:
            Refused: a request that uses it has not ended.
        """
        with self._lock:
            if any(one.adapter == number for sequences in self._live.values() for one in sequences):
                raise Refused("requests that use it have not ended.", where=f"adapter {number}")
            self.backend.remove_adapter(number)
            self._adapters.discard(number)
            if self._scheduler.pool is not None:
                self._scheduler.pool.forget_adapter(number)
