"""Between which characters BPE can merge, said by the tokens of its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

_FIRST_OF_WIDTH = (0, 0, 0x80, 0x800, 0x10000, 0x110000)  # first code point of so many bytes of UTF-8


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
    found = {
        (token[before:border], token[border:after])
        for token in tokens
        for before, border, after in _inner_borders(token)
    }
    among = np.unique(np.array(points, dtype=np.int64))
    by_end = {end: _ending_with(end, among) for end in {end for end, _ in found}}
    by_start = {start: _starting_with(start, among) for start in {start for _, start in found}}
    pairs = [(end, start) for end, start in found if len(by_end[end]) and len(by_start[start])]
    left, left_groups = _groups(sorted({end for end, _ in pairs}), by_end)
    right, right_groups = _groups(sorted({start for _, start in pairs}), by_start)
    table = np.zeros((int(left.max()) + 1, int(right.max()) + 1), dtype=np.bool_)
    for end, start in pairs:
        table[np.ix_(left_groups[end], right_groups[start])] = True
    return left, right, table


def _starting_with(part: bytes, points: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of the ascending code points whose UTF-8 starts with these bytes: one range of them."""
    width = _width(part[0])
    if not width or len(part) > width:
        return points[:0]
    low = part[0] - (0, 0, 0xC0, 0xE0, 0xF0)[width]
    for byte in part[1:]:
        low = low << 6 | byte & 0x3F
    missing = 6 * (width - len(part))
    low, end = low << missing, (low + 1) << missing
    low, end = max(low, _FIRST_OF_WIDTH[width]), min(end, _FIRST_OF_WIDTH[width + 1])
    first, last = np.searchsorted(points, [low, max(low, end)])
    return points[first:last]


def _ending_with(part: bytes, points: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of the ascending code points whose UTF-8 ends with these bytes, all of it or the last of it."""
    if _width(part[0]):
        return _starting_with(part, points) if len(part) == _width(part[0]) else points[:0]
    if len(part) > 3:
        return points[:0]
    value = 0
    for byte in part:
        value = value << 6 | byte & 0x3F
    wide = points[np.searchsorted(points, _FIRST_OF_WIDTH[len(part) + 1]) :]
    return wide[(wide & ((1 << 6 * len(part)) - 1)) == value]


def _width(lead: int) -> int:
    """How many bytes the character has that starts with this byte; 0: none does."""
    return 0 if 0x80 <= lead < 0xC0 else 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)


def _inner_borders(token: bytes) -> Iterator[tuple[int, int, int]]:
    """(start of the character before, border, end of the character after) for each border within a token."""
    inner = [i for i in range(1, len(token)) if not 0x80 <= token[i] < 0xC0]
    return zip([0, *inner], inner, [*inner[1:], len(token)])


def _groups(
    parts: list[bytes], characters: Mapping[bytes, npt.NDArray[np.int64]]
) -> tuple[npt.NDArray[np.uint16], dict[bytes, list[int]]]:
    """(group of each code point, 0 where no part fits; the groups that each part fits)."""
    group = np.zeros(0x110000, dtype=np.uint16)
    groups: dict[bytes, list[int]] = {part: [] for part in parts}
    if not parts:
        return group, groups
    points = np.concatenate([characters[part] for part in parts])
    numbers = np.repeat(np.arange(len(parts), dtype=np.uint32), [len(characters[part]) for part in parts])
    order = np.argsort(points, kind="stable")
    fitting, first = np.unique(points[order], return_index=True)
    # The numbers of the parts that a code point fits, as bytes, name its group.
    raw = numbers[order].tobytes()
    edges = [*(first * numbers.itemsize).tolist(), len(raw)]
    names: dict[bytes, int] = {}
    group[fitting] = [names.setdefault(raw[a:b], len(names) + 1) for a, b in pairwise(edges)]
    for fits, name in names.items():
        for number in np.frombuffer(fits, dtype=np.uint32).tolist():
            groups[parts[number]].append(name)
    return group, groups
