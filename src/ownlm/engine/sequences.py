"""One sequence of a request: its tokens, how many of them are computed, and the cache blocks that hold those."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ownlm.engine.backend import BLOCK
from ownlm.engine.blocks import Prefix, chained, root_key
from ownlm.engine.requests import Constraint, SamplingSettings

SPARE = 64  # room for tokens that is added at least when an answer grows


@dataclass(eq=False, slots=True)
class Sequence:
    """A waiting or running sequence.

    Args:
        key: a number of its own.
        request_id, index: whose sequence, and which of its n.
        settings, adapter, embedding: of the request.
        constraint: its own, or None.
        ids: int32, room for more; the first `length` are known: the prompt, then what was generated.
        prompt_length: how many of them are the prompt.
        limit: the length at which it ends.
        length: known tokens.
        computed: tokens whose keys and values are in the cache; the rest is computed next.
        blocks: its cache blocks, in order.
        prefixes: what its full blocks hold, as far as that was asked for.
        kept: how many of its blocks others can find.
        forks: further sequences of the request, which wait until the prompt is computed and go on from it.
        scores: of the prompt's tokens as far as they are known, (log-probability, top ids, top log-probabilities).
        states: sum of the hidden states so far, for a mean.
        state: "waiting" until it is admitted and after its cache was taken away, "running", "ended".
    """

    key: int
    request_id: int
    index: int
    settings: SamplingSettings
    ids: npt.NDArray[np.int32]
    prompt_length: int
    limit: int
    adapter: int = 0
    constraint: Constraint | None = None
    embedding: Literal["last", "mean"] | None = None
    length: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    prefixes: list[Prefix] = field(default_factory=list)
    kept: int = 0
    forks: list[Sequence] = field(default_factory=list)
    scores: list[tuple[float, npt.NDArray[np.int64], npt.NDArray[np.float64]]] = field(default_factory=list)
    states: npt.NDArray[np.float64] | None = None
    state: Literal["waiting", "running", "ended"] = "waiting"

    def __post_init__(self) -> None:
        self.length = self.prompt_length

    @property
    def seen(self) -> npt.NDArray[np.int32]:
        """Known ids [length]."""
        return self.ids[: self.length]

    @property
    def target(self) -> int:
        """Tokens to compute before anything can be done: the last one of a text that is only scored tells nothing."""
        return max(self.length - 1, 1) if self.scored_only else self.length

    @property
    def missing(self) -> int:
        """Tokens that are still to be computed."""
        return self.target - self.computed

    @property
    def scored_only(self) -> bool:
        """Whether nothing is generated and only the prompt's log-probabilities are wanted."""
        return self.settings.max_new_tokens == 0

    @property
    def wanted_from(self) -> int:
        """The first position whose output is wanted; all later ones are too."""
        if self.embedding == "mean":
            return self.computed
        if self.settings.prompt_logprobs is not None and self.next_scored < self.prompt_length - 1:
            return self.next_scored
        return self.target - 1

    @property
    def next_scored(self) -> int:
        """The position whose output tells the next log-probability of the prompt."""
        return self.settings.prompt_logprobs_from - 1 + len(self.scores)

    def append(self, token: int) -> None:
        """One more token."""
        if self.length == len(self.ids):
            room = np.zeros(min(max(SPARE, self.length), self.limit - self.length), np.int32)
            self.ids = np.concatenate([self.ids, room])
        self.ids[self.length] = token
        self.length += 1

    def prefix(self, number: int) -> Prefix:
        """What its full block `number` holds, after all before it."""
        while len(self.prefixes) <= number:
            at = len(self.prefixes)
            before = self.prefixes[-1].key if at else root_key(self.adapter)
            self.prefixes.append(chained(before, self.ids[at * BLOCK : (at + 1) * BLOCK], self.adapter))
        return self.prefixes[number]

    def forked(self, key: int, index: int) -> Sequence:
        """Another sequence of the same request with the same prompt."""
        return Sequence(
            key,
            self.request_id,
            index,
            self.settings,
            self.ids,  # copied by the first `append`: a prompt has no spare room
            self.prompt_length,
            self.limit,
            self.adapter,
            self.constraint.copy() if self.constraint is not None else None,
        )
