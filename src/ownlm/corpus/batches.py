"""Which tokens a step sees: a function of (seed, step) alone, whatever the number of processes.

The training tokens are one long row of documents. An epoch cuts it into blocks of `context` tokens, from an offset
that changes every epoch so that block borders move, and visits the blocks in a keyed random order. The order is
computed, never stored: a Feistel network permutes any number of blocks in constant memory.
"""

from __future__ import annotations

import numpy as np

from ownlm.console.errors import Refused
from ownlm.corpus.shards import Split
from ownlm.seeds import derive

NOT_TRAINED = -100  # the target that torch's cross_entropy ignores

ROUNDS = (
    6  # of the Feistel network; four give a pseudo-random permutation (Luby & Rackoff 1988), two are spare
)


class Batches:
    """Batches of a training split.

    Args:
        split: the tokens.
        context: tokens a row, T.
        rows: rows a step, over all micro-batches and processes.
        seed: of the order.
    """

    def __init__(self, split: Split, context: int, rows: int, seed: int) -> None:
        self.split, self.context, self.rows, self.seed = split, context, rows, seed
        # One token more than a block is needed (the target of its last token), and the offset must fit too.
        self.blocks = (split.num_tokens - 1) // context - (1 if split.num_tokens > 2 * context + 1 else 0)
        if self.blocks < 1:
            raise Refused(
                f"the training text has {split.num_tokens:,} tokens, less than one window of {context:,} + 1.",
                why="A model of this context could not be trained on it.",
                do=f"a smaller window (--context {max(8, 2 ** int(np.log2(max(split.num_tokens, 16) / 4)))}), or more text",
            )

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens after which every block was seen once."""
        return self.blocks * self.context

    def step(self, step: int, first: int = 0, count: int | None = None) -> np.ndarray:
        """Rows [first, first + count) of a step: token ids int64 [count, context + 1]; targets are shifted by one."""
        starts = self.starts(step, first, self.rows - first if count is None else count)
        batch = np.empty((len(starts), self.context + 1), dtype=np.int64)
        for row, start in enumerate(starts):
            batch[row] = self.split.read(start, start + self.context + 1)
        return batch

    def pairs(self, step: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows [first, first + count) of a step as (ids that are read, targets after each), int64 [count, context]."""
        rows = self.step(step, first, count)
        return rows[:, :-1], rows[:, 1:]

    def starts(self, step: int, first: int, count: int) -> list[int]:
        """Where in the split the rows [first, first + count) of a step begin, in tokens."""
        found = []
        for serial in range(step * self.rows + first, step * self.rows + first + count):
            epoch, index = divmod(serial, self.blocks)
            block = permuted(index, self.blocks, derive(self.seed, "data order", epoch))
            found.append(self._offset(epoch) + block * self.context)
        return found

    def _offset(self, epoch: int) -> int:
        room = self.split.num_tokens - 1 - self.blocks * self.context
        return derive(self.seed, "block offset", epoch) % (min(room, self.context - 1) + 1)


def permuted(index: int, count: int, key: int) -> int:
    """The image of `index` under a keyed permutation of range(count): Feistel network with cycle walking.

    Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains", §5.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (_mix(right, key + turn) & mask)
        index = (left << half) | right
        if index < count:
            return index


def _mix(value: int, key: int) -> int:
    """A 64-bit finaliser (Steele et al. 2014, SplitMix64)."""
    z = (value * 0x9E3779B97F4A7C15 + key) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)


def fixed_sample(split: Split, context: int, rows: int, seed: int) -> np.ndarray:
    """The blocks that validation during training looks at every time: int64 [<= rows, context + 1].

    Blocks are drawn without repetition over the whole split; a split shorter than one block gives one short row.
    """
    blocks = (split.num_tokens - 1) // context
    if blocks < 1:
        return split.read(0, split.num_tokens).astype(np.int64)[None]
    key = derive(seed, "validation sample")
    chosen = sorted(permuted(i, blocks, key) for i in range(min(rows, blocks)))
    return np.stack([split.read(b * context, (b + 1) * context + 1).astype(np.int64) for b in chosen])
