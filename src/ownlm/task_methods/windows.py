"""Long texts through windows that overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer


def windows(tokenizer: Tokenizer, text: str, size: int) -> list[tuple[int, int]]:
    """Places [start, end) of a text in characters, each of at most `size` tokens, advancing by half of that.

    Every place of the text is in one of them; a text that fits is one window.
    """
    offsets = tokenizer.backend.encode(text, add_special_tokens=False).offsets
    if len(offsets) <= size:
        return [(0, len(text))]
    step = max(1, size // 2)
    found = []
    for first in range(0, len(offsets), step):
        last = min(first + size, len(offsets))
        # A token may begin behind spaces that its offsets leave out: a window reaches to the next one.
        start = offsets[first][0] if first else 0
        found.append((start, offsets[last][0] if last < len(offsets) else len(text)))
        if last == len(offsets):
            break
    return found
