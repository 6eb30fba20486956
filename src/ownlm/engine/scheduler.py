"""What is computed next: every running sequence's token first, then prompts in chunks, as far as the step has room.

When blocks run out the newest sequence gives its own back and waits. Later all of its tokens, those it generated too,
are computed again; that changes no bit, because a token's result depends on nothing but the tokens before it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ownlm.engine.backend import BLOCK
from ownlm.engine.blocks import BlockPool, blocks_for
from ownlm.engine.sequences import Sequence


class Chunk(NamedTuple):
    """Tokens of a sequence for this step: `tokens` of them from `sequence.computed` on."""

    sequence: Sequence
    tokens: int


class Usage(NamedTuple):
    """Sequences and cache blocks at one moment, and counts since the start.

    Args:
        running: sequences that run; others wait.
        blocks: of the cache. blocks_in_use: those that sequences hold, not those only kept for later.
        preemptions: how often a sequence gave its blocks back and was computed again.
        prefix_tokens: tokens that were found in the cache instead of being computed.
    """

    running: int
    blocks: int
    blocks_in_use: int
    preemptions: int
    prefix_tokens: int


class Scheduler:
    """Waiting and running sequences, and the cache blocks that they share.

    Args:
        pool: the blocks; None: the backend keeps caches of its own, whose prompts are computed whole.
        step_tokens: tokens of a step; sequences that generate go first, whatever their number.
        step_outputs: results of a step beside theirs: logits of a large vocabulary take memory.
        max_sequences: sequences that run at the same time.
    """

    def __init__(
        self, pool: BlockPool | None, *, step_tokens: int, step_outputs: int, max_sequences: int
    ) -> None:
        self.pool = pool
        self.step_tokens, self.step_outputs, self.max_sequences = step_tokens, step_outputs, max_sequences
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.copies: list[tuple[int, int]] = []
        self.preemptions = 0
        self.prefix_tokens = 0

    @property
    def capacity(self) -> int:
        """Tokens that the cache holds; a backend with caches of its own sets no bound here."""
        return 2**62 if self.pool is None else self.pool.count * BLOCK

    def schedule(self) -> list[Chunk]:
        """The next step; `copies` then holds the blocks (source, target) to copy before it."""
        chunks: list[Chunk] = []
        for sequence in list(self.running):
            if sequence.state == "running" and sequence.missing == 1 and self._make_room(sequence):
                chunks.append(Chunk(sequence, 1))
        tokens, outputs = self.step_tokens - len(chunks), self.step_outputs
        for sequence in self.running:
            if sequence.missing > 1:
                tokens, outputs = self._add_prompt(chunks, sequence, tokens, outputs)
        while tokens > 0 and outputs > 0 and len(self.running) < self.max_sequences and self._admit():
            tokens, outputs = self._add_prompt(chunks, self.running[-1], tokens, outputs)
        assert chunks or not (self.running or self.waiting), "what can never fit is refused before it waits"
        return chunks

    def _add_prompt(
        self, chunks: list[Chunk], sequence: Sequence, tokens: int, outputs: int
    ) -> tuple[int, int]:
        """As much of a prompt as the step has room for; gives the room that is left."""
        count = sequence.missing
        if self.pool is not None:
            count = min(count, max(tokens, 0), max(sequence.wanted_from - sequence.computed, 0) + outputs)
        if count <= 0:
            return tokens, outputs
        chunks.append(Chunk(sequence, count))
        return tokens - count, outputs - max(sequence.computed + count - sequence.wanted_from, 0)

    def _make_room(self, sequence: Sequence) -> bool:
        """A block of its own for the next token of a running sequence; False: it gave its blocks back itself."""
        if self.pool is None:
            return True
        full = sequence.computed == len(sequence.blocks) * BLOCK
        while full or self.pool.shared(sequence.blocks[-1]):
            if self.pool.available:
                if full:
                    sequence.blocks.append(self.pool.take())
                else:
                    self._write_apart(sequence)
                return True
            newest = self.running[-1]
            self._preempt(newest)  # it may have been the one that reads this sequence's last block
            if newest is sequence:
                return False
        return True

    def _write_apart(self, sequence: Sequence) -> None:
        """Copy the last block, which other sequences of the request read, before it is written to."""
        assert self.pool is not None
        source, target = sequence.blocks[-1], self.pool.take()
        self.copies.append((source, target))
        self.pool.give_back([source])
        sequence.blocks[-1] = target

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.state, sequence.states = "waiting", None  # a sum of states begins again, too
        self.waiting.appendleft(sequence)

    def _admit(self) -> bool:
        """Let the next waiting sequence run when all blocks for its known tokens are there."""
        while self.waiting and self.waiting[0].state == "ended":
            self.waiting.popleft()
        if not self.waiting:
            return False
        sequence = self.waiting[0]
        if self.pool is not None:
            found = self._cached_prefix(sequence)
            needed = blocks_for(sequence.target) - len(found)
            if needed > self.pool.available - self.pool.idle_among(found):
                return False
            self.pool.share(found)
            sequence.blocks = found + [self.pool.take() for _ in range(needed)]
            sequence.computed, sequence.kept = len(found) * BLOCK, len(found)
            self.prefix_tokens += sequence.computed
        self.waiting.popleft()
        sequence.state = "running"
        self.running.append(sequence)
        return True

    def _cached_prefix(self, sequence: Sequence) -> list[int]:
        """Blocks that hold the beginning of a sequence, before anything that is wanted of it."""
        assert self.pool is not None
        found: list[int] = []
        if self.pool.sharing:
            for number in range(sequence.wanted_from // BLOCK):
                block = self.pool.find(sequence.prefix(number))
                if block is None:
                    break
                found.append(block)
        return found

    def computed(self, chunk: Chunk) -> None:
        """The tokens of a chunk are in the cache; full blocks may be found by others from now on."""
        sequence = chunk.sequence
        sequence.computed += chunk.tokens
        if self.pool is None or not self.pool.sharing:
            return
        for number in range(sequence.kept, sequence.computed // BLOCK):
            self.pool.keep(sequence.blocks[number], sequence.prefix(number))
            sequence.kept = number + 1

    def fork(self, leader: Sequence) -> list[Sequence]:
        """Let the other sequences of a request go on from its prompt; those without room wait as others do."""
        forks = [fork for fork in leader.forks if fork.state != "ended"]
        leader.forks = []
        for fork in forks:
            fork.scores = leader.scores
        room = self.max_sequences - len(self.running) if self.pool is not None else 0
        for fork in forks[:room]:
            assert self.pool is not None
            self.pool.share(leader.blocks)
            fork.blocks, fork.computed, fork.kept = list(leader.blocks), leader.computed, leader.kept
            fork.prefixes = list(leader.prefixes)
            fork.state = "running"
            self.running.append(fork)
        self.waiting.extendleft(reversed(forks[room:]))
        return forks[:room]

    def end(self, sequence: Sequence, *, damaged: bool = False) -> None:
        """A sequence has ended, or is not wanted any more; the next one of its request takes over the prompt."""
        running = sequence.state == "running"
        if running:
            self.running.remove(sequence)
            self._give_back(sequence, damaged=damaged)
        sequence.state = "ended"
        heirs = [fork for fork in sequence.forks if fork.state != "ended"]
        sequence.forks = []
        if heirs:
            heirs[0].forks = heirs[1:]
            self.waiting.appendleft(heirs[0])

    def _give_back(self, sequence: Sequence, *, damaged: bool = False) -> None:
        if self.pool is not None:
            self.pool.give_back(sequence.blocks, damaged=damaged)
        sequence.blocks, sequence.computed, sequence.kept = [], 0, 0

    def usage(self) -> Usage:
        """How many sequences run, how full the cache is, and what happened so far."""
        blocks, used = (0, 0) if self.pool is None else (self.pool.count, self.pool.used)
        return Usage(len(self.running), blocks, used, self.preemptions, self.prefix_tokens)
