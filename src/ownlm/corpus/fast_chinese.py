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
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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
_MAX_UNITS = 300_000  # chains remembered; a text that has more starts again with none
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
        self._units: dict[str, int] = {}
        self._unit_of = np.full(0x110000, -1, dtype=np.int32)
        self._flat = np.zeros(1024, dtype=np.uint32)
        self._start, self._count = np.zeros(1024, dtype=np.int32), np.zeros(1024, dtype=np.int32)
        self._used = self._filled = 0
        # Chains of two and three characters by their code points, each at the place its hash says or not at
        # all.
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
        if len(self._units) > _MAX_UNITS:
            self._forget()
        units = self._unit_of.take(points.take(starts))
        foreign = np.searchsorted(starts, others)
        chains = np.flatnonzero(lengths > 1)
        units[chains] = self._known_chains(points, starts[chains], lengths[chains])
        units[foreign] = -1
        unknown = np.flatnonzero(units < 0)
        is_foreign = np.isin(unknown, foreign).tolist()
        given_away: list[npt.NDArray[np.uint32]] = []
        learnt = []
        spans = zip(starts[unknown].tolist(), (starts + lengths)[unknown].tolist(), is_foreign)
        for start, end, away in spans:
            piece = text[start:end]
            if away:
                given_away.append(self._by_tiktoken(piece))
                learnt.append(-1)
            else:
                known = self._units.get(piece)
                learnt.append(self._learn(piece) if known is None else known)
        units[unknown] = learnt
        return self._gather(units, given_away)

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
        third = points.take(np.minimum(starts + 2, len(points) - 1)) * (lengths == 3)
        keys = _chain_key(points.take(starts), points.take(starts + 1), third)
        places = _chain_place(keys)
        found = (self._chain_keys.take(places) == keys) & (lengths <= 3)
        return np.where(found, self._chain_units.take(places), np.int32(-1))

    def _learn(self, piece: str) -> int:
        """The unit of a character or chain that was not met before."""
        # A unit never holds a border of pre-tokens, so the regex has nothing to cut in it.
        ids = self._by_tiktoken(piece)
        unit, first = self._used, self._filled
        self._used, self._filled = unit + 1, first + len(ids)
        if self._used > len(self._start):
            self._start, self._count = np.tile(self._start, 2), np.tile(self._count, 2)
        if self._filled > len(self._flat):
            self._flat = np.concatenate([self._flat, np.zeros(len(self._flat) + len(ids), dtype=np.uint32)])
        self._start[unit], self._count[unit] = first, len(ids)
        self._flat[first : self._filled] = ids
        if len(piece) == 1:
            self._unit_of[ord(piece)] = unit
            return unit
        self._units[piece] = unit
        if len(piece) <= 3:
            key = _chain_key(*np.array([*map(ord, piece), 0], dtype=np.uint32)[:3, None])
            place = _chain_place(key)
            self._chain_keys[place], self._chain_units[place] = key, unit
        return unit

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


def _chain_key(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> npt.NDArray[np.uint64]:
    return (
        first.astype(np.uint64)
        | second.astype(np.uint64) << np.uint64(21)
        | third.astype(np.uint64) << np.uint64(42)
    )


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


def straddled(
    tokens: Iterable[bytes], points: Sequence[int]
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Between which characters BPE can merge: those that some token of the vocabulary straddles.

    Args:
        tokens: bytes of every token; one may begin or end within a character.
        points: the code points that are asked about.

    Returns:
        left, right, table: the border of characters a and b is straddled if `table[left[a], right[b]]`;
        left and right group characters that behave alike, uint16 [0x110000]; table is bool [groups, groups].
    """
    by_start: dict[bytes, list[int]] = {}
    by_end: dict[bytes, list[int]] = {}
    for point in points:
        encoded = chr(point).encode("utf-8")
        for length in range(1, len(encoded) + 1):
            by_start.setdefault(encoded[:length], []).append(point)
            by_end.setdefault(encoded[-length:], []).append(point)
    pairs = {
        (token[before:border], token[border:after])
        for token in tokens
        for before, border, after in _inner_borders(token)
        if token[before:border] in by_end and token[border:after] in by_start
    }
    left, left_groups = _groups(sorted({end for end, _ in pairs}), by_end)
    right, right_groups = _groups(sorted({start for _, start in pairs}), by_start)
    table = np.zeros((int(left.max()) + 1, int(right.max()) + 1), dtype=np.bool_)
    for end, start in pairs:
        table[np.ix_(left_groups[end], right_groups[start])] = True
    return left, right, table


def _inner_borders(token: bytes) -> Iterator[tuple[int, int, int]]:
    """(start of the character before, border, end of the character after) for each border within a token."""
    inner = [i for i in range(1, len(token)) if not 0x80 <= token[i] < 0xC0]
    return zip([0, *inner], inner, [*inner[1:], len(token)])


def _groups(
    parts: list[bytes], characters: dict[bytes, list[int]]
) -> tuple[npt.NDArray[np.uint16], dict[bytes, list[int]]]:
    """(group of each code point, 0 where no part fits; the groups that each part fits)."""
    fitting: dict[int, list[int]] = {}
    for number, part in enumerate(parts):
        for point in characters[part]:
            fitting.setdefault(point, []).append(number)
    names: dict[tuple[int, ...], int] = {}
    group = np.zeros(0x110000, dtype=np.uint16)
    for point, numbers in fitting.items():
        group[point] = names.setdefault(tuple(numbers), len(names) + 1)
    groups: dict[bytes, list[int]] = {part: [] for part in parts}
    for fits, name in names.items():
        for number in fits:
            groups[parts[number]].append(name)
    return group, groups


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
