"""The engine: requests join and leave at any step, and every step gives each running sequence one token."""

from __future__ import annotations

import threading
from collections import abc, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import Refused, UsageError
from ownlm.engine.backend import Backend, Place
from ownlm.engine.requests import Event, FinishReason, Request, SamplingSettings
from ownlm.engine.sampling import choose, log_probabilities, most_probable
from ownlm.engine.scoring import Window, score_windows
from ownlm.engine.torch_backend import TorchBackend
from ownlm.model.transformer import Transformer

MAX_ROWS = 64  # sequences that run at the same time; the others wait
PROMPT_TOKENS_PER_STEP = 2048  # new prompts (one at least) may hold up the running sequences by this much


@dataclass
class Sequence:
    """A waiting or running sequence.

    Args:
        ids: the prompt while it waits; then [limit], of which `length` are known.
        limit: the length at which it ends.
        row: its place in the backend while it runs.
    """

    request_id: int
    index: int
    settings: SamplingSettings
    ids: npt.NDArray[np.int64]
    length: int
    limit: int
    row: Place | None = None

    @property
    def seen(self) -> npt.NDArray[np.int64]:
        """Ids so far."""
        return self.ids[: self.length]


class Engine:
    """Generates and scores with one model; knows only token ids.

    Several callers may share one, from one thread or from many: each takes its own events with `step_for`.

    Args:
        model: the weights; neither changed nor moved (a copy is made for another dtype or device). Or a backend
            that has its own: then dtype, device, max_context and tile_rows are its own, too.
        dtype: "auto": the weights' own, but fp32 on a CPU without bf16 arithmetic; "float32", "bfloat16".
        device: "cpu", "cuda", "mps"; None: where the model is.
        max_context: the window, prompt and answer together; None: what the model was made for.
        max_rows: sequences that run at the same time; further ones wait.
        tile_rows: rows computed together, see `torch_backend`; None: chosen by the device.
    """

    def __init__(
        self,
        model: Transformer | Backend,
        *,
        dtype: str = "auto",
        device: str | None = None,
        max_context: int | None = None,
        max_rows: int = MAX_ROWS,
        tile_rows: int | None = None,
    ) -> None:
        self.backend: Backend = (
            TorchBackend(model, dtype, device, max_context, tile_rows)
            if isinstance(model, Transformer)
            else model
        )
        self.max_context, self.max_rows = self.backend.max_context, max_rows
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._last_id = 0
        self._lock = threading.RLock()
        self._kept: dict[int, list[Event]] = {}  # events of requests whose caller did not ask yet

    def submit(self, request: Request) -> int:
        """Queue a request; its events come from `step`.

        Raises:
            UsageError: no prompt token, a token the model does not have, a `max_length` without room.
            Refused: a prompt that fills the context window (never cut silently).
        """
        ids, settings = np.asarray(request.prompt_ids, dtype=np.int64), request.settings
        limit = self._limit(ids, settings)
        with self._lock:
            self._last_id += 1
            for index in range(settings.n):
                self._waiting.append(Sequence(self._last_id, index, settings, ids, len(ids), limit))
            return self._last_id

    def _limit(self, ids: npt.NDArray[np.int64], settings: SamplingSettings) -> int:
        """Length at which the sequences of a request end."""
        if len(ids) == 0:
            raise UsageError("a prompt needs at least one token.", where="prompt")
        vocabulary = self.backend.vocab_size
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise UsageError(f"token ids lie between 0 and {vocabulary - 1:,}.", where="prompt")
        if len(ids) >= self.max_context:
            raise Refused(
                f"the prompt has {len(ids):,} tokens; the context window holds {self.max_context:,}.",
                where="prompt",
                why="Prompt and answer share it.",
                do="a shorter prompt",
            )
        if settings.max_length is not None and settings.max_length <= len(ids):
            raise UsageError(
                f"max_length is {settings.max_length:,}, and the prompt has {len(ids):,} tokens already.",
                where="max_length",
                do="a larger max_length, or max_new_tokens",
            )
        longest = self.backend.longest(len(ids))
        asked = settings.max_length or len(ids) + (settings.max_new_tokens or longest)
        return min(asked, longest)

    @property
    def busy(self) -> bool:
        """Whether a sequence runs or waits."""
        return bool(self._running or self._waiting)

    def step(self) -> list[Event]:
        """One token for every running sequence, and the first one for those that found a free row."""
        with self._lock:
            events = self._decode()
            prompt_tokens = 0
            while (
                self._waiting
                and len(self._running) < self.max_rows
                and prompt_tokens < PROMPT_TOKENS_PER_STEP
            ):
                prompt_tokens += self._waiting[0].length
                self._admit(events)
            return events

    def step_for(self, request_ids: abc.Set[int]) -> list[Event]:
        """The next events of these requests; those of others are kept until their callers ask.

        Returns:
            At least one event while one of the requests has not ended; [] after that.
        """
        while True:
            with self._lock:
                mine = [event for request_id in request_ids for event in self._kept.pop(request_id, [])]
                left = any(s.request_id in request_ids for s in (*self._running, *self._waiting))
                if mine or not left:
                    return mine
                for event in self.step():
                    self._kept.setdefault(event.request_id, []).append(event)

    def _decode(self) -> list[Event]:
        events: list[Event] = []
        by_tile: dict[int, tuple[Any, list[Sequence]]] = {}
        for sequence in self._running:
            assert sequence.row is not None
            by_tile.setdefault(id(sequence.row.tile), (sequence.row.tile, []))[1].append(sequence)
        for tile, sequences in by_tile.values():
            tokens = {s.row.index: (int(s.ids[s.length - 1]), s.length - 1) for s in sequences if s.row}
            logits = self.backend.decode(tile, tokens)
            events += [self._advance(s, logits[s.row.index]) for s in sequences if s.row]
        self._drop_ended()
        return events

    def _drop_ended(self) -> None:
        self._running = [s for s in self._running if s.row is not None]

    def _admit(self, events: list[Event]) -> None:
        """Compute the next waiting prompt and start as many of its sequences as there are rows."""
        request_id = self._waiting[0].request_id
        prefilled = self.backend.prefill(self._waiting[0].seen)
        while self._waiting and self._waiting[0].request_id == request_id:
            if len(self._running) >= self.max_rows:
                return
            sequence = self._waiting.popleft()
            room = np.zeros(sequence.limit - sequence.length, np.int64)
            sequence.ids = np.concatenate([sequence.ids, room])
            sequence.row = self.backend.allocate(prefilled)
            self._running.append(sequence)
            events.append(self._advance(sequence, prefilled.logits))
            self._drop_ended()

    def _advance(self, sequence: Sequence, logits: npt.NDArray[np.float32]) -> Event:
        """Choose the next token of a sequence; give its row back when it ends."""
        settings = sequence.settings
        token = choose(logits, settings, sequence.seen, sequence.index)
        logprobs = log_probabilities(logits)
        sequence.ids[sequence.length] = token
        sequence.length += 1
        reason: FinishReason | None = None
        if token in settings.stop_token_ids:
            reason = "stop"
        elif sequence.length == len(sequence.ids):
            reason = "length"
        if reason:
            self._release(sequence)
        top = most_probable(logprobs, settings.logprobs)
        return Event(sequence.request_id, sequence.index, token, float(logprobs[token]), reason, top)

    def _release(self, sequence: Sequence) -> None:
        if sequence.row is not None:
            self.backend.release(sequence.row)
            sequence.row = None

    def cancel(self, request_id: int, index: int | None = None) -> bool:
        """End a request, or one of its sequences, without further events; False when nothing was left."""

        def meant(sequence: Sequence) -> bool:
            return sequence.request_id == request_id and index in (None, sequence.index)

        with self._lock:
            before = len(self._running) + len(self._waiting)
            for sequence in filter(meant, self._running):
                self._release(sequence)
            self._drop_ended()
            self._waiting = deque(s for s in self._waiting if not meant(s))
            kept = self._kept.pop(request_id, [])
            if index is not None and any(event.index != index for event in kept):
                self._kept[request_id] = [event for event in kept if event.index != index]
            return len(self._running) + len(self._waiting) < before

    def generate(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Submit requests and yield their events until all have ended; closing the iterator cancels them."""
        mine = {self.submit(request) for request in requests}
        try:
            while events := self.step_for(mine):
                yield from events
        finally:
            for request_id in mine:
                self.cancel(request_id)

    def score(self, sequences: abc.Sequence[abc.Sequence[int]]) -> list[npt.NDArray[np.float64]]:
        """Log-probability (nats) of every token given those before it, in batches.

        Args:
            sequences: token ids; each at least one token and at most one more than the context window.

        Returns:
            For each sequence float64 [tokens - 1]: its first token has nothing before it.

        Raises:
            Refused: a sequence longer than the window (`ownlm.evaluation.scoring` slides over long texts).
        """
        arrays = [np.asarray(ids, dtype=np.int64) for ids in sequences]
        for ids in arrays:
            if len(ids) > self.max_context + 1:
                raise Refused(
                    f"the sequence has {len(ids):,} tokens; the context window holds {self.max_context:,}.",
                    where="score",
                )
        windows = [Window((i,), ids, 1) for i, ids in enumerate(arrays) if len(ids) > 1]
        scored = {s.key[0]: s.logprobs for s in score_windows(self.backend.model, windows)}
        return [scored.get(i, np.zeros(0)) for i in range(len(arrays))]
