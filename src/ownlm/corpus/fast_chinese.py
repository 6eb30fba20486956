"""Qwen2's pre-tokenisation and byte-level BPE of Chinese text in array operations, with the same ids.

Two facts make it possible. Over a small alphabet (Han, ASCII letters, digits, punctuation, space, line end)
the pre-tokens end where two or three neighbouring classes of characters say so. And where no token of the
vocabulary straddles the border of two characters, BPE cannot merge over it: in Chinese text most characters
stand alone, and their ids come from a table. What is left are short chains of characters, which come again
and again: a dictionary. Lines with anything else (Kana, emoji, 's, spaces at their end) go to tiktoken and
are put back in their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ownlm.corpus.straddled import straddled

if TYPE_CHECKING:
    import tiktoken

# Only characters whose class has not changed since Unicode 4 (2003): every regex engine agrees on them.
OTHER, LETTER, PUNCTUATION, NEWLINE, DIGIT, SPACE, SEPARATOR_CLASS = range(7)
_RANGES = {
    LETTER: [("A", "Z"), ("a", "z"), ("\u3400", "\u4db5"), ("\u4e00", "\u9fa5")],
    PUNCTUATION: [
        ("!", "&"), ("(", "/"), (":", "@"), ("[", "`"), ("{", "~"), ("\u00b7", "\u00b7"),
        ("\u2010", "\u2027"), ("\u2030", "\u2052"), ("\u25a0", "\u25ef"), ("\u3001", "\u3003"),
        ("\u3008", "\u3020"), ("\uff01", "\uff0f"), ("\uff1a", "\uff20"), ("\uff3b", "\uff40"),
        ("\uff5b", "\uff65"), ("\ufffd", "\ufffd"),
    ],
    NEWLINE: [("\n", "\n"), ("\r", "\r")],
    DIGIT: [("0", "9"), ("\u3007", "\u3007"), ("\uff10", "\uff19")],
    SPACE: [(" ", " ")],
}  # fmt: skip

# What stands between two neighbours: no border of pre-tokens, a border, or look at a third character.
_NONE, _BORDER, _AFTER_PUNCTUATION, _IN_SPACES, _UNKNOWN = range(5)

_HAN = re.compile("[\u4e00-\u9fa5]")
_MAX_UNITS = 300_000  # characters and chains remembered; a text that has more starts again with none
_UNKNOWN_UNIT, _GIVEN_AWAY = np.int32(-1), np.int32(-2)
_CHAIN_BITS = 17
_CHAIN_PLACES = 1 << _CHAIN_BITS


class FastChinese:
    """The array way for one vocabulary.

    Args:
        encoding: the tiktoken encoding of the same merges, for chains and for lines that are not plain
            Chinese.
        tokens: the bytes of every token.
        separator: the character between joined documents, a special token of `encoding`.
    """

    def __init__(self, encoding: tiktoken.Encoding, tokens: Iterable[bytes], separator: str) -> None:
        self.encoding, self.separator = encoding, separator
        classes = _class_table(separator)
        left, right, table = straddled(tokens, np.flatnonzero(classes).tolist())
        # One table for all three: reading it is what costs.
        self._traits = classes | left.astype(np.uint64) << 8 | right.astype(np.uint64) << 32
        self._straddled, self._right_groups = table.reshape(-1), np.uint32(table.shape[1])
        self._borders = _border_table()
        self._forget()

    def _forget(self) -> None:
        # A unit is a character or a chain; its ids are _flat[_start[unit] : _start[unit] + _count[unit]].
        # Unit 0 is the separator.
        self._flat = np.array([self.encoding.max_token_value], dtype=np.uint32)
        self._start, self._count = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
        self._unit_of = np.full(0x110000, _UNKNOWN_UNIT, dtype=np.int32)
        self._unit_of[ord(self.separator)] = 0
        self._long: dict[str, int] = {}
        # Chains of two and three characters by the key of their code points; those that were met last also
        # in a table, each at the place that its hash says.
        self._short: dict[int, int] = {}
        self._chain_keys = np.zeros(_CHAIN_PLACES, dtype=np.uint64)
        self._chain_units = np.zeros(_CHAIN_PLACES, dtype=np.int32)

    @staticmethod
    def suits(text: str) -> bool:
        """Whether at least half of the characters are Han (a sample of them is looked at)."""
        sample = text[:: max(len(text) // 2000, 1)]
        return not text.isascii() and 2 * len(_HAN.findall(sample)) > len(sample)

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Token ids, uint32 [tokens], of a text without broken surrogates; separators as their special id."""
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        begins, others = self._unit_begins(points)
        starts = np.flatnonzero(begins)
        lengths = np.diff(starts, append=len(points))
        if len(self._start) > _MAX_UNITS:
            self._forget()
        units = self._unit_of.take(points.take(starts))
        foreign = np.searchsorted(starts, others)
        chains = np.flatnonzero(lengths > 1)
        units[chains] = self._known_chains(points, starts[chains], lengths[chains])
        units[foreign] = _GIVEN_AWAY
        unknown = np.flatnonzero(units == _UNKNOWN_UNIT)
        if len(unknown):
            units[unknown] = self._learn(text, points, starts[unknown], lengths[unknown])
        spans = zip(others.tolist(), (others + lengths[foreign]).tolist())
        return self._gather(units, [self._by_tiktoken(text[start:end]) for start, end in spans])

    def _by_tiktoken(self, text: str) -> npt.NDArray[np.uint32]:
        return self.encoding.encode_to_numpy(text, allowed_special={self.separator}, disallowed_special=())

    def _unit_begins(
        self, points: npt.NDArray[np.uint32]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """(where a unit begins, [characters]; those of these places where lines for tiktoken begin)."""
        traits = self._traits.take(points)
        classes = traits.astype(np.uint8)
        borders = self._borders.take((classes[:-1] << 3) | classes[1:])
        at = np.flatnonzero(borders == _AFTER_PUNCTUATION)
        before = classes[at - 1]
        borders[at] = (at > 0) & ((before == PUNCTUATION) | (before == SPACE))
        at = np.flatnonzero(borders == _IN_SPACES)
        after = classes[np.minimum(at + 2, len(classes) - 1)]
        borders[at] = (at + 2 < len(classes)) & (after != SPACE) & (after != SEPARATOR_CLASS)
        unknown = np.flatnonzero(borders == _UNKNOWN)
        left = (traits[:-1] >> 8).astype(np.uint16).astype(np.uint32)
        right = (traits[1:] >> 32).astype(np.uint32)
        merges = self._straddled.take(left * self._right_groups + right)
        begins = np.ones(len(points), dtype=np.bool_)
        begins[1:] = (borders != _NONE) | ~merges
        strange = np.concatenate([np.flatnonzero(classes == OTHER), unknown])
        if not len(strange):
            return begins, strange
        return begins, _give_away(classes, begins, strange)

    def _known_chains(
        self, points: npt.NDArray[np.uint32], starts: npt.NDArray[np.intp], lengths: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.int32]:
        """The units of chains of two or three characters that were met before, -1 for all others."""
        keys = _chain_keys(points, starts, lengths)
        places = _chain_place(keys)
        found = (self._chain_keys.take(places) == keys) & (lengths <= 3)
        return np.where(found, self._chain_units.take(places), _UNKNOWN_UNIT)

    def _learn(
        self,
        text: str,
        points: npt.NDArray[np.uint32],
        starts: npt.NDArray[np.intp],
        lengths: npt.NDArray[np.intp],
    ) -> npt.NDArray[np.int32]:
        """The units of characters and chains, those that were not met before being encoded in one call."""
        units = np.empty(len(starts), dtype=np.int32)
        single, short, long = lengths == 1, (lengths == 2) | (lengths == 3), lengths > 3
        new_points = np.zeros(0x110000, dtype=np.bool_)
        new_points[points[starts[single]]] = True
        characters = np.flatnonzero(new_points)
        keys, which = np.unique(_chain_keys(points, starts[short], lengths[short]), return_inverse=True)
        new_keys = [key for key in keys.tolist() if key not in self._short]
        spans = zip(starts[long].tolist(), (starts + lengths)[long].tolist())
        pieces = [text[start:end] for start, end in spans]
        new_pieces = [piece for piece in dict.fromkeys(pieces) if piece not in self._long]

        first = self._append(_spelled(characters, self.separator), len(characters))
        self._unit_of[characters] = np.arange(first, first + len(characters))
        first = self._append(_spelled(np.array(new_keys, dtype=np.uint64), self.separator), len(new_keys))
        self._short.update(zip(new_keys, range(first, first + len(new_keys))))
        first = self._append("".join(self.separator + piece for piece in new_pieces), len(new_pieces))
        self._long.update(zip(new_pieces, range(first, first + len(new_pieces))))

        known = np.array([self._short[key] for key in keys.tolist()], dtype=np.int32)
        places = _chain_place(keys)
        self._chain_keys[places] = keys
        self._chain_units[places] = known
        units[single] = self._unit_of[points[starts[single]]]
        units[short] = known[which]
        units[long] = [self._long[piece] for piece in pieces]
        return units

    def _append(self, spelled: str, count: int) -> int:
        """Encode `count` new units, each after a separator; the number of the first one."""
        first = len(self._start)
        if count:
            # A unit never holds a border of pre-tokens, so the regex has nothing to cut in it.
            ids = self._by_tiktoken(spelled)
            begins = np.flatnonzero(ids == self.encoding.max_token_value) + 1
            self._start = np.append(self._start, begins + len(self._flat))
            self._count = np.append(self._count, np.diff(begins, append=len(ids) + 1) - 1)
            self._flat = np.append(self._flat, ids)
        return first

    def _gather(
        self, units: npt.NDArray[np.int32], given_away: list[npt.NDArray[np.uint32]]
    ) -> npt.NDArray[np.uint32]:
        """The ids of all units in their order; units below zero are those that were given away."""
        away = np.flatnonzero(units < 0)
        units[away] = 0
        counts, first = self._count.take(units), self._start.take(units)
        counts[away] = [len(ids) for ids in given_away]
        ends = np.cumsum(counts, dtype=np.int64)
        places = ends - counts
        result = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint32)
        result[places] = self._flat.take(first)
        counts[away] = 1
        # Most units have one id, few have more than three: each round fills in the next one of those that
        # go on.
        more, nth = np.flatnonzero(counts > 1), 1
        while len(more):
            result[places[more] + nth] = self._flat.take(first[more] + nth)
            nth += 1
            more = more[counts[more] > nth]
        for position, ids in zip(places[away].tolist(), given_away):
            result[position : position + len(ids)] = ids
        return result


def _chain_keys(
    points: npt.NDArray[np.uint32], starts: npt.NDArray[np.intp], lengths: npt.NDArray[np.intp]
) -> npt.NDArray[np.uint64]:
    """The code points of chains of two or three characters, 21 bits each, the first one lowest."""
    keys = points.take(starts + 1).astype(np.uint64) << np.uint64(21)
    keys |= points.take(starts)
    third = points.take(np.minimum(starts + 2, len(points) - 1)) * (lengths == 3)
    keys |= third.astype(np.uint64) << np.uint64(42)
    return keys


def _spelled(keys: npt.NDArray[Any], separator: str) -> str:
    """The characters of each key, each key after a separator. No unit holds U+0000: zeros are no character."""
    keys = keys.astype(np.uint64)
    points = np.full((len(keys), 4), ord(separator), dtype="<u4")
    for column in range(3):
        points[:, column + 1] = (keys >> np.uint64(21 * column)) & np.uint64(0x1FFFFF)
    return points[points != 0].tobytes().decode("utf-32-le")


def _chain_place(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Fibonacci hashing (Knuth 1973): the top bits of the product with 2^64 / φ."""
    return ((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _CHAIN_BITS)).astype(np.intp)


def _give_away(
    classes: npt.NDArray[np.uint8], begins: npt.NDArray[np.bool_], strange: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Make one unit of each stretch of lines that holds strange characters; where these units begin.

    A line may be cut off where a line end is followed by a character that is no space: in whatever way the
    regex reached the line end, a pre-token ends there.
    """
    first, second = classes[:-1], classes[1:]
    visible = (second == LETTER) | (second == PUNCTUATION) | (second == DIGIT)
    cut = np.zeros(len(classes) + 1, dtype=np.bool_)
    cut[0] = cut[-1] = True
    cut[1:-1] = ((first == NEWLINE) & visible) | (first == SEPARATOR_CLASS) | (second == SEPARATOR_CLASS)
    cuts = np.flatnonzero(cut)
    lines = np.unique(np.searchsorted(cuts, strange, side="right") - 1)
    stretches = np.flatnonzero(np.diff(lines, prepend=-2) > 1)
    starts = cuts[lines[stretches]]
    ends = cuts[lines[np.append(stretches[1:], len(lines)) - 1] + 1]
    for start, end in zip(starts.tolist(), ends.tolist()):
        begins[start:end] = False
        begins[start] = True
        if end < len(begins):
            begins[end] = True
    return starts


def _class_table(separator: str) -> npt.NDArray[np.uint8]:
    table = np.zeros(0x110000, dtype=np.uint8)
    for kind, ranges in _RANGES.items():
        for first, last in ranges:
            table[ord(first) : ord(last) + 1] = kind
    table[ord(separator)] = SEPARATOR_CLASS
    return table


def _border_table() -> npt.NDArray[np.uint8]:
    """What `_BORDER` and its like say between the classes a and b, at index 8a + b.

    The rules read off the regex: letters run on (`\\p{L}+`), with one space or one piece of punctuation in
    front; punctuation runs on, takes one space in front and the line ends behind; digits stand alone; line
    ends run on; of several spaces the last goes with the next letter or punctuation, in front of a digit it
    stands alone.
    """
    table = np.full((8, 8), _BORDER, dtype=np.uint8)
    table[LETTER, LETTER] = table[PUNCTUATION, PUNCTUATION] = table[NEWLINE, NEWLINE] = _NONE
    table[PUNCTUATION, NEWLINE] = table[SPACE, LETTER] = table[SPACE, PUNCTUATION] = _NONE
    table[PUNCTUATION, LETTER] = _AFTER_PUNCTUATION
    table[SPACE, SPACE] = _IN_SPACES
    table[SPACE, NEWLINE] = _UNKNOWN
    return table.reshape(-1)
