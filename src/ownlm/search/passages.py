"""A document cut into passages: sections by their headings, long ones at paragraphs and sentences."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from ownlm.search.terms import UNSPACED

# Size of a text: its characters, one of an unspaced script counting for three: it says as much as half a word.
LONGEST = 1200  # about 200 words or 400 Chinese characters
SHORTEST = 360  # a section below it is joined with the next: 60 words
OVERLAP = 240  # a sentence up to this size stands on both sides of a cut

_UNSPACED = re.compile(f"[{UNSPACED}]")
_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r"^([=\-~^*+#\"'`.:_])\1{2,}[ \t]*$")
_FENCE = re.compile(r"^[ \t]*(```|~~~)")
_SENTENCE = re.compile(
    r"[.!?\u2026]+[\"'\u201d\u2019)\]]*(?:[ \t]*\|)*(?=\s)|[\u3002\uff01\uff1f\uff1b\u0964][\u201d\u2019\u300d\u300f\uff09\"]*"
)
# Where a text may be cut, the best places first.
_CUTS = (re.compile(r"\n[ \t]*\n\s*"), _SENTENCE, re.compile(r"\n"), re.compile(r"\s|[\uff0c\u3001]"))


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document.

    Attributes:
        text: as it stands in the document.
        line: number of line ends before it in the document.
        heading: the headings above it, outermost first, joined with " › "; "" without any.
    """

    text: str
    line: int
    heading: str


def passages(text: str) -> Iterator[Passage]:
    """The passages of a normalised document, in order; together they hold all of it."""
    line_ends = [match.start() for match in re.finditer("\n", text)]
    for begin, end, heading in _joined(text):
        for first, last in _pieces(text, begin, end):
            first += len(text[first:last]) - len(text[first:last].lstrip())
            part = text[first:last].rstrip()
            if part:
                yield Passage(part, bisect_right(line_ends, first - 1), heading)


def size_of(text: str) -> int:
    """See `LONGEST`."""
    return len(text) + 2 * len(_UNSPACED.findall(text))


def _joined(text: str) -> Iterator[tuple[int, int, str]]:
    """Sections (begin, end, heading), short ones joined with what follows them."""
    begin, heading, held = -1, "", 0
    for first, last, above in _sections(text):
        size = size_of(text[first:last])
        if begin < 0:
            begin, heading = first, above
        elif held >= SHORTEST or held + size > LONGEST:
            yield begin, first, heading
            begin, heading, held = first, above, 0
        held += size
    if begin >= 0:
        yield begin, len(text), heading


def _sections(text: str) -> Iterator[tuple[int, int, str]]:
    """(begin, end, headings above) of what stands between two headings, its own heading included.

    A heading that is followed by another one at once belongs to the section below both.
    """
    begin, body, path = 0, 0, list[tuple[int, str]]()
    for first, last, level, title in _headings(text):
        if text[body:first].strip():
            yield begin, first, " › ".join(name for _, name in path)
            begin = first
        body = last
        path = [(depth, name) for depth, name in path if depth < level] + [(level, title)]
    yield begin, len(text), " › ".join(name for _, name in path)


def _headings(text: str) -> Iterator[tuple[int, int, int, str]]:
    """(begin, end, level from 1, title) of # lines of Markdown and of underlined lines (Markdown, reStructuredText)."""
    place, fenced, before = 0, False, ""
    underlines: list[str] = []
    for line in text.splitlines(keepends=True):
        bare, end = line.rstrip(), place + len(line)
        if _FENCE.match(bare):
            fenced = not fenced
        elif not fenced:
            mark, below = _HEADING.match(bare), _UNDERLINE.match(bare)
            if mark:
                yield place, end, len(mark[1]), mark[2]
            elif below and _is_title(before, bare):
                if below[1] not in underlines:
                    underlines.append(below[1])
                yield place - len(before), end, underlines.index(below[1]) + 1, before.strip()
        place, before = end, line


def _is_title(line: str, underline: str) -> bool:
    """Whether a line of text can be what this line underlines."""
    return bool(line.strip()) and not _UNDERLINE.match(line) and len(underline) >= len(line.rstrip())


def _pieces(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of parts of a section, none larger than `LONGEST`, of about the same size."""
    size = size_of(text[begin:end])
    if size <= LONGEST:
        yield begin, end
        return
    per_character = size / (end - begin)
    longest = max(int(LONGEST / per_character), 1)
    while begin < end:
        rest = end - begin
        if rest <= longest:
            yield begin, end
            return
        wanted = max(rest // -(-rest // longest), 1)
        cut, clean = _cut(text, begin, begin + wanted, begin + longest)
        yield begin, cut
        begin = cut if clean else _sentence_before(text, begin, cut, int(OVERLAP / per_character))


def _cut(text: str, begin: int, wanted: int, latest: int) -> tuple[int, bool]:
    """(where to cut near `wanted` and not behind `latest`, whether a paragraph ends there)."""
    earliest = begin + (wanted - begin) * 2 // 3
    for cuts in _CUTS:
        places = [match.end() for match in cuts.finditer(text, earliest, latest)]
        if places:
            return min(places, key=lambda place: abs(place - wanted)), cuts is _CUTS[0]
    return latest, False


def _sentence_before(text: str, begin: int, cut: int, longest: int) -> int:
    """Where the last sentence before a cut begins, the cut itself when that is too far away."""
    earliest = max(begin + 1, cut - longest)
    starts = [match.end() for match in _SENTENCE.finditer(text, earliest, cut) if match.end() < cut]
    return starts[-1] if starts else cut
