"""Which tokens a step sees: a function of (seed, step) alone, whatever the number of processes.

The training tokens are one long row of documents. An epoch cuts it into blocks of `context` tokens, from an offset
that changes every epoch so that block borders move, and visits the blocks in a keyed random order. The order is
computed, never stored: a Feistel network permutes any number of blocks in constant memory.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from ownlm.console.errors import Refused
from ownlm.corpus.shards import Split
from ownlm.seeds import derive

NOT_TRAINED = -100  # the target that torch's cross_entropy ignores

SNIPPET = 60  # characters
SNIPPET_TOKENS = 90  # more than enough for them in any tokenizer that is worth its name

ROUNDS = (
    6  # of the Feistel network; four give a pseudo-random permutation (Luby & Rackoff 1988), two are spare
)


class TokenRows(NamedTuple):
    """Some rows of a step.

    Attributes:
        ids: tokens that the model reads, int64 [rows, T].
        targets: what it learns to say after each of them, int64 [rows, T]; -100 is not trained.
        starts: where rows hold several texts that do not see each other: the place at which each token's text begins,
            int64 [rows, T].
    """

    ids: np.ndarray
    targets: np.ndarray
    starts: np.ndarray | None = None

    def part(self, first: int, end: int) -> TokenRows:
        """Rows [first, end)."""
        starts = None if self.starts is None else self.starts[first:end]
        return TokenRows(self.ids[first:end], self.targets[first:end], starts)


class Source(Protocol):
    """What a run is trained on: the rows of a step are a function of its number.

    Attributes:
        rows: of a step, over all micro-batches and processes.
    """

    rows: int

    def pairs(self, step: int, first: int, count: int) -> TokenRows:
        """Rows [first, first + count) of a step."""

    def documents(self, step: int, worst_first: list[int], most: int) -> tuple[list[str], int]:
        """(what is in a step as words, at most `most`; how many are not listed), by row numbers in this order."""


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

    def pairs(self, step: int, first: int, count: int) -> TokenRows:
        """Rows [first, first + count) of a step; every token is trained."""
        return shifted(self.step(step, first, count))

    def documents(self, step: int, worst_first: list[int], most: int) -> tuple[list[str], int]:
        """(documents of a step as words, how many are not listed).

        Args:
            step: 0-based. worst_first: row numbers in the order in which their documents are listed.
        """
        starts, begins = self.starts(step, 0, self.rows), self.split.document_starts
        seen: dict[int, tuple[int, int]] = {}
        for row in worst_first:
            # The row's first document is the last one that begins there or before.
            start, stop = starts[row], starts[row] + self.context
            first = int(np.searchsorted(begins, start, side="right")) - 1
            for document in range(first, int(np.searchsorted(begins, stop, side="left"))):
                end = int(begins[document + 1]) if document + 1 < len(begins) else stop
                seen.setdefault(document, (max(start, int(begins[document])), min(stop, end)))
        return [self._named(*entry) for entry in list(seen.items())[:most]], max(0, len(seen) - most)

    def _named(self, document: int, place: tuple[int, int]) -> str:
        """'texts/fox.txt:12 (document 34: "The quick brown …")': the text is what the batch holds of it."""
        tokenizer = self.split.corpus.tokenizer
        ids = self.split.read(place[0], min(place[1], place[0] + SNIPPET_TOKENS)).tolist()
        text = tokenizer.decode([token for token in ids if token != tokenizer.eos_id])
        return f'{self.split.where(document)} (document {document:,}: "{snippet(text)}")'

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


def shifted(rows: np.ndarray) -> TokenRows:
    """Rows of T + 1 tokens as what is read and what follows it."""
    return TokenRows(rows[:, :-1], rows[:, 1:])


def snippet(text: str) -> str:
    """The beginning of a text on one line; it may begin and end inside a character."""
    text = " ".join(text.strip("\ufffd").split())
    return text[:SNIPPET].rstrip() + (" …" if len(text) > SNIPPET else "")


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
