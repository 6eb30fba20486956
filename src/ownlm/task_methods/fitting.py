"""Texts and answers that do not fit: refused, or cut, which is counted and said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ownlm.console import output as out
from ownlm.console.errors import Refused

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer

NEW_TOKENS = 256  # of a translation or a summary at most: a long paragraph
LEAST_ROOM = 16  # tokens for an answer: a prompt that leaves fewer is taken as too long


@dataclass
class Tally:
    """What was cut, over all texts of a command or a call."""

    texts: int = 0
    cut_texts: int = 0
    cut_answers: int = 0

    def say(self) -> None:
        """Say what was cut, if anything."""
        if self.cut_texts:
            out.warn(f"{self.cut_texts:,} of {self.texts:,} texts did not fit the window and were cut.")
        if self.cut_answers:
            out.say(
                f"{self.cut_answers:,} of {self.texts:,} answers were cut at their length "
                "(--max-new-tokens for more)."
            )


def fitted(
    texts: Sequence[str],
    ids_of: Callable[[int, str], Sequence[int]],
    tokenizer: Tokenizer,
    most: int,
    *,
    truncate: bool,
    tally: Tally,
    where: Callable[[int], str] = "text {}".format,
) -> list[str]:
    """The texts, cut at their ends where they are too long and `truncate` is set.

    Args:
        ids_of: number and text → what the model reads of it.
        most: how many tokens that may be.
        where: number of a text from 0 → what messages call it.

    Raises:
        Refused: an empty text; one that is too long, unless `truncate` is set.
    """
    found = []
    for number, text in enumerate(texts):
        if not text.strip():
            raise Refused("an empty text.", where=where(number))
        tokens = len(ids_of(number, text))
        if tokens > most:
            if not truncate:
                raise Refused(
                    f"{tokens:,} tokens with what is asked; there is room for {most:,} in the window.",
                    where=where(number),
                    do="--truncate cuts the end off; or shorter texts",
                )
            text = _cut(text, partial(ids_of, number), tokenizer, most, where(number))
            tally.cut_texts += 1
        found.append(text)
    tally.texts += len(texts)
    return found


def _cut(
    text: str, ids_of: Callable[[str], Sequence[int]], tokenizer: Tokenizer, most: int, where: str
) -> str:
    """As much of the beginning of a text as fits."""
    offsets = tokenizer.backend.encode(text, add_special_tokens=False).offsets
    around = len(ids_of(""))
    keep = min(most - around, len(offsets))
    while keep > 0:
        part = text[: offsets[keep - 1][1]]
        over = len(ids_of(part)) - most
        if over <= 0:
            return part
        keep -= over
    raise Refused(f"what is asked takes {around:,} tokens alone; there is room for {most:,}.", where=where)
