"""Answers that are words of a text, in a row and as they stand there, with the place they stand at.

Scripts without spaces have no words that could be told by sight: there every character may begin and end an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Chinese characters, kana, Thai, Lao, Burmese, Khmer: each a unit; else words with what is inside of them.
_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
UNIT = re.compile(rf"[{_ALONE}]|(?:(?![{_ALONE}])\w)+(?:[.,'’\-](?:(?![{_ALONE}])\w)+)*|[^\w\s]")
NOT_FIRST = set(".,;:!?)]}。，、；：！？）】》」』”’")
NOT_LAST = set("([{（【《「『“‘")
LONGEST_TOKEN = 48  # bytes of a token that are looked at


class Spelling:
    """Which tokens spell which bytes; one for a model.

    Args:
        tokens: bytes of each id; b"" for special tokens.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.size = len(tokens)
        self.ids: dict[bytes, list[int]] = {}
        for index, data in enumerate(tokens):
            if 0 < len(data) <= LONGEST_TOKEN:
                self.ids.setdefault(data, []).append(index)
        self.tokens = tokens
        self.longest = max(map(len, self.ids), default=0)


@dataclass(frozen=True)
class Text:
    """A text as bytes, with the places where an answer may begin and end.

    Attributes:
        data: UTF-8. starts, ends: bytes. characters: byte → character, at the places of both.
    """

    data: bytes
    starts: tuple[int, ...]
    ends: frozenset[int]
    characters: Mapping[int, int] = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Text:
        """The places of a text."""
        places = np.cumsum([0, *(len(c.encode("utf-8", "replace")) for c in text)]).tolist()
        units = [(found.start(), found.end(), found[0]) for found in UNIT.finditer(text)]
        starts = tuple(places[start] for start, _, unit in units if unit not in NOT_FIRST)
        ends = frozenset(places[end] for _, end, unit in units if unit not in NOT_LAST)
        characters = {places[place]: place for unit in units for place in unit[:2]}
        return cls(text.encode("utf-8", "replace"), starts, ends, characters)


class SpanConstraint:
    """Holds an answer to words of a text; see `ownlm.engine.requests.Constraint`.

    Args:
        text: where the words stand. spelling: of the model.
        end_ids: tokens that end the answer. spaced: a space may come before the first word.
        barred: tokens that it does not begin with.
    """

    def __init__(
        self,
        text: Text,
        spelling: Spelling,
        end_ids: Sequence[int],
        *,
        spaced: bool,
        barred: Sequence[int] = (),
    ) -> None:
        self._text, self._spelling, self._end_ids, self._spaced = text, spelling, tuple(end_ids), spaced
        self._barred = tuple(barred)
        self._paths: list[tuple[int, int]] | None = (
            None  # (start, place after what was written); None: nothing yet
        )
        self._ended = False
        self.last: tuple[int, int] | None = None  # the longest answer so far that ends where one may

    def mask(self) -> npt.NDArray[np.bool_]:
        """[V]: tokens that go on with a span, and where one may end those that end it."""
        allowed = np.zeros(self._spelling.size, np.bool_)
        if self._paths is None:
            places, space = list(self._text.starts), self._spaced
        else:
            places, space = [at for _, at in self._paths], False
            if any(at in self._text.ends for at in places):
                allowed[list(self._end_ids)] = True
        data, ids = self._text.data, self._spelling.ids
        if space:
            allowed[ids.get(b" ", [])] = True
        for at in dict.fromkeys(places):
            for length in range(1, min(self._spelling.longest, len(data) - at) + 1):
                spelled = data[at : at + length]
                allowed[ids.get(spelled, [])] = True
                if space:
                    allowed[ids.get(b" " + spelled, [])] = True
        if self._paths is None:
            allowed[list(self._barred)] = False
        return allowed

    def accept(self, token: int) -> None:
        """This token was written."""
        if self._paths is not None and token in self._end_ids:
            self._ended = True
            return
        data = self._spelling.tokens[token]
        if self._paths is None:
            paths = [(start, start) for start in self._text.starts]
            if self._spaced and data.startswith(b" "):
                data = data[1:]
        else:
            paths = self._paths
        text = self._text.data
        self._paths = [(start, at + len(data)) for start, at in paths if text.startswith(data, at)]
        self.last = next(((s, at) for s, at in self._paths if at > s and at in self._text.ends), self.last)

    @property
    def ended(self) -> bool:
        """Whether the answer was ended, or nothing can follow it."""
        return self._ended or (self._paths is not None and not self.mask().any())

    @property
    def place(self) -> tuple[int, int] | None:
        """(start, end) in characters of the text: the first place that spells the answer, without an unfinished word."""
        if self.last is None:
            return None
        return self._text.characters[self.last[0]], self._text.characters[self.last[1]]

    def copy(self) -> SpanConstraint:
        """The same state for another sequence."""
        other = SpanConstraint(
            self._text, self._spelling, self._end_ids, spaced=self._spaced, barred=self._barred
        )
        other._paths, other._ended, other.last = self._paths, self._ended, self.last
        return other
