"""Texts packed into windows: several in a row, none cut, none seeing another.

Texts are placed in a keyed random order, each into the fullest window that still has room for it (best fit; Johnson
1973). Which texts share a window says nothing to the model, because attention and positions begin anew at each, so it
is decided once; every epoch visits the windows in another order.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from ownlm.corpus.batches import NOT_TRAINED, TokenRows, permuted, snippet
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.seeds import derive
from ownlm.training.tuning.texts import Text


class Packed:
    """Windows of texts, and the rows of each step.

    Args:
        texts: none is longer than `context`.
        context: tokens a window, T.
        rows: windows a step.
        seed: of the order.
        tokenizer: its padding fills what texts leave; names texts in messages.
    """

    def __init__(
        self, texts: Sequence[Text], context: int, rows: int, seed: int, tokenizer: Tokenizer
    ) -> None:
        self.texts, self.context, self.rows, self.seed = texts, context, rows, seed
        self.tokenizer = tokenizer
        order = [permuted(i, len(texts), derive(seed, "row order")) for i in range(len(texts))]
        self.groups = fitted([len(texts[i].ids) for i in order], context)
        self.groups = [[order[i] for i in group] for group in self.groups]

    @property
    def windows(self) -> int:
        """How many windows an epoch has."""
        return len(self.groups)

    @property
    def tokens_per_epoch(self) -> int:
        """Places of all windows, padding included."""
        return self.windows * self.context

    @property
    def filled(self) -> float:
        """Share of the places that hold a token of a text."""
        return sum(len(text.ids) for text in self.texts) / max(1, self.tokens_per_epoch)

    def pairs(self, step: int, first: int, count: int) -> TokenRows:
        """Rows [first, first + count) of a step."""
        return self.windows_of(self._serials(step, first, count))

    def windows_of(self, numbers: Sequence[int]) -> TokenRows:
        """Some windows by their numbers."""
        shape = (len(numbers), self.context)
        ids = np.full(shape, self.tokenizer.pad_id, np.int64)
        targets, starts = np.full(shape, NOT_TRAINED, np.int64), np.zeros(shape, np.int64)
        for row, number in enumerate(numbers):
            at = 0
            for index in self.groups[number]:
                text = self.texts[index]
                end = at + len(text.ids)
                ids[row, at:end], targets[row, at:end], starts[row, at:end] = text.ids, text.targets, at
                at = end
            starts[row, at:] = at
        return TokenRows(ids, targets, starts)

    def documents(self, step: int, worst_first: list[int], most: int) -> tuple[list[str], int]:
        """See `Source`."""
        numbers = self._serials(step, 0, self.rows)
        inside = [index for row in worst_first for index in self.groups[numbers[row]]]
        return [self._named(self.texts[index]) for index in inside[:most]], max(0, len(inside) - most)

    def _serials(self, step: int, first: int, count: int) -> list[int]:
        found = []
        for serial in range(step * self.rows + first, step * self.rows + first + count):
            epoch, index = divmod(serial, self.windows)
            found.append(permuted(index, self.windows, derive(self.seed, "data order", epoch)))
        return found

    def _named(self, text: Text) -> str:
        words = self.tokenizer.decode(text.ids[:90].tolist())
        return f'{text.where} ("{snippet(words)}")'


def fitted(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Indices of the sizes in groups whose sums are at most `room`: best fit, in the given order."""
    groups: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, number of the group), ascending
    for index, size in enumerate(sizes):
        place = bisect.bisect_left(free, (size, -1))
        if place == len(free):
            number, left = len(groups), room - size
            groups.append([index])
        else:
            left, number = free.pop(place)
            left -= size
            groups[number].append(index)
        if left:
            bisect.insort(free, (left, number))
    return groups
