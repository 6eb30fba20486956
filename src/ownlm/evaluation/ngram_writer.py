"""The baseline that writes: a counter of 4-grams of tokens, which draws what followed the last three tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ORDER = 4
ID_BITS = 21  # three ids in one 64-bit number: vocabularies up to two million


class NgramWriter:
    """Draws tokens by how often they followed the same three tokens in a text.

    Where the three were never seen it takes the last two, then the last one, then any token of the text. The
    places of the text are sorted by the three tokens before them, nearest first, so that the places after a
    shorter context are one range too.

    Args:
        ids: the training text, token ids [tokens], at least four.
    """

    def __init__(self, ids: npt.NDArray[Any]) -> None:
        if len(ids) < ORDER:
            raise ValueError(f"{len(ids)} tokens; at least {ORDER} are needed")
        before = np.asarray(ids, np.uint64)
        keys = np.zeros(len(ids) - ORDER + 1, np.uint64)
        for back in range(1, ORDER):
            keys = (keys << np.uint64(ID_BITS)) | before[ORDER - 1 - back : len(ids) - back]
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._next = np.asarray(ids)[ORDER - 1 :][order]

    def following(self, context: Sequence[int]) -> npt.NDArray[Any]:
        """The tokens that followed the longest seen end of a context, one for each place."""
        for size in range(min(ORDER - 1, len(context)), 0, -1):
            low = 0
            for token in reversed(context[-size:]):
                low = (low << ID_BITS) | token
            shift = ID_BITS * (ORDER - 1 - size)
            ends = np.array([low << shift, (low + 1) << shift], np.uint64)
            start, stop = np.searchsorted(self._keys, ends)
            if stop > start:
                return self._next[start:stop]
        return self._next

    def write(
        self,
        prompt_ids: Sequence[int],
        new_tokens: int,
        stop_id: int,
        generator: np.random.Generator,
        *,
        temperature: float = 1.0,
    ) -> list[int]:
        """Up to `new_tokens` tokens after a prompt; the last one is `stop_id` when it was drawn."""
        ids = list(prompt_ids)
        while len(ids) < len(prompt_ids) + new_tokens:
            tokens, counts = np.unique(self.following(ids), return_counts=True)
            weights = counts ** (1 / temperature)
            ids.append(int(generator.choice(tokens, p=weights / weights.sum())))
            if ids[-1] == stop_id:
                break
        return ids[len(prompt_ids) :]
