"""Bytes to text: UTF-8, UTF-16 and UTF-32, GB18030, Big5 and Latin-1 told apart, binary content refused.

Unicode is recognised by its byte-order mark, by validity (UTF-8) or by its zero bytes (UTF-16, UTF-32).
The three legacy encodings accept nearly any bytes, so they are told apart by likelihood: how many of the
two-byte characters fall where running text has them (GB 2312 level 1: lead B0-D7, trail A1-FE; Big5 level 1:
lead A4-C6) and are among the most frequent ones, against how many high bytes stand alone among ASCII, as
accented letters do.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

WINDOW = 1 << 18  # bytes looked at to tell legacy encodings apart
CONTROL_SHARE = 0.01  # more control characters than this: not text
IMPLAUSIBLE_SHARE = 0.04  # of UTF-16 units; random ones are implausible to 40 %
BROKEN_SHARE = 0.1  # of the non-ASCII characters; chance makes < 15 % of GB or Latin-1 text valid UTF-8
LEAST_LIKELY = 0.4  # below it no encoding explains the bytes
BROKEN_PAIRS = 0.02  # of two-byte characters: a damaged text; one may always be cut at the end
KANA_SHARE = 0.45  # of two-byte characters: EUC-JP text, whose kana look like the first rows of Big5
LONG, LEAST_FREQUENT = 60, 0.15  # Chinese text of 60 characters and more has 25 % and more frequent ones

_BOMS = (  # UTF-32 first: its mark starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes(c for c in range(32) if c not in b"\t\n\x0b\x0c\r\x1b\x08")
_FREQUENT = (
    "的一是不了在人有我他这這中大来來上国國个個到说說们們为為子和你地出道也时時年得就那要下以生会會自着著去之过過家学學对對可她里裡裏"
    "后後小么麼心多天而能好都然没沒日于於起还還发發成事只作当當想看文无無开開手十用主行方又如前所本见見经經头頭面公同三已老从從动動"
    "两兩长長知民样樣现現分将將外但身些与與高意进進把法此实實回二理美点點月明其种種声聲全工己话話儿兒者向情部正名定女问問力机機给給"
    "等几幾很业業最间間新什打便位因重被走电電四第门門相次东東政海口使教西再平真听聽世气氣信北少关關并並内內加化由却卻代军軍产產入"
    "先山五太水万萬市眼体體别別处處总總才场場师師书書比住员員九笑性通目华華报報立马馬命张張活难難神数數件安表原车車白应應路期叫"
    "死常提感金何更反合放做系係计計或司利受光王果亲親界及今京务務制解各任至清物台臺象记記边邊共风風战戰干乾接它许許八特觉覺望直服"
    "春花江秋夜云雲雨酒草谁誰客君，。、：；？！「」《》（）“”"
)


class NotText(ValueError):
    """The bytes are no text that can be read; the message says why."""


class UnknownEncoding(NotText):
    """They may be text, in an encoding that none of ours explains."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text, the encoding it was in, and how many U+FFFD stand for broken bytes."""

    text: str
    encoding: str
    replaced: int


def decode(data: bytes) -> Decoded:
    """The text of a whole file.

    Raises:
        NotText: binary content, or an encoding that is not recognised.
    """
    encoding = detect(data)
    try:
        return Decoded(data.decode(codec(encoding)).removeprefix("\ufeff"), encoding, 0)
    except UnicodeDecodeError:
        text = data.decode(codec(encoding), "replace").removeprefix("\ufeff")
        return Decoded(text, encoding, text.count("\ufffd"))


def codec(encoding: str) -> str:
    """The Python codec that reads an encoding named by `detect`.

    As in the WHATWG encoding standard, Latin-1 is read as Windows-1252, which has letters where Latin-1 has
    control characters, and Big5 with its Hong Kong supplement.
    """
    return {"latin-1": "cp1252", "big5": "big5hkscs"}.get(encoding, encoding)


def detect(data: bytes, complete: bool = True) -> str:
    """The encoding of a text.

    Args:
        data: its bytes, or its first ones.
        complete: False when more follow (a character may then be cut at the end).

    Returns:
        A name: "utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "gb18030", "big5",
        "cp1252" or "latin-1".

    Raises:
        NotText: binary content, or an encoding that is not recognised.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    sample = data[:WINDOW]
    if b"\0" in sample:
        return _wide(sample)
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    if controls > CONTROL_SHARE * len(sample):
        raise NotText("too many control characters")
    if data.isascii():
        return "utf-8"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, complete)
        return "utf-8"
    except UnicodeDecodeError as error:
        start = max(0, min(error.start - WINDOW // 2, len(data) - WINDOW))
    first = next(re.finditer(rb"[\x80-\xff]", data)).start()
    if _mostly_utf8(data[start : start + WINDOW], complete and start + WINDOW >= len(data)):
        return "utf-8"
    return _legacy(data[first - 1 if first else 0 : first + WINDOW])


_PLAUSIBLE = re.compile(
    "[\t\n\r -~\xa0-\u024f\u0370-\u05ff\u2010-\u203f\u20ac\u2190-\u22ff\u2500-\u25ff"
    "\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uff5f]"
)


def _wide(sample: bytes) -> str:
    """UTF-32 or UTF-16 without a mark: what reads as the most plausible characters, ASCII counting double."""
    scores = {}
    for name, unit in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        text = codecs.getincrementaldecoder(name)(errors="replace").decode(sample)
        plausible = "".join(_PLAUSIBLE.findall(text))
        if len(text) - len(plausible) <= IMPLAUSIBLE_SHARE * len(text):
            scores[name] = unit * (len(plausible) + len(plausible.encode("ascii", "ignore")))
    if not scores:
        raise NotText("zero bytes")
    return max(scores, key=scores.__getitem__)


def _mostly_utf8(sample: bytes, complete: bool) -> bool:
    """Whether a sample that holds broken bytes is UTF-8 all the same."""
    sample = sample.lstrip(bytes(range(0x80, 0xC0)))  # the rest of a character that the window cut
    text = codecs.getincrementaldecoder("utf-8")(errors="replace").decode(sample, complete)
    broken = text.count("\ufffd")
    valid = len(text) - len(text.encode("ascii", "ignore")) - broken
    return valid > 0 and broken <= BROKEN_SHARE * (valid + broken)


def _legacy(sample: bytes) -> str:
    scores = {"latin-1": _latin_score(sample), "gb18030": _gb_score(sample), "big5": _big5_score(sample)}
    best = max(scores, key=scores.__getitem__)
    if scores[best] < LEAST_LIKELY:
        raise UnknownEncoding("encoding not recognised")
    if best == "latin-1" and re.search(rb"[\x80-\x9f]", sample):
        return "cp1252"
    return best


_FREQUENT_GB = frozenset(c.encode("gb18030") for c in _FREQUENT)
_FREQUENT_BIG5 = frozenset(b for c in _FREQUENT if len(b := c.encode("big5", "ignore")) == 2)
_GB_CHARACTERS = re.compile(
    rb"[\x81-\xfe][\x30-\x39][\x81-\xfe][\x30-\x39]|[\x81-\xfe][\x40-\x7e\x80-\xfe]|[\x80-\xff]"
)
_BIG5_CHARACTERS = re.compile(rb"[\x87-\xfe][\x40-\x7e\xa1-\xfe]|[\x80-\xff]")


def _gb_score(sample: bytes) -> float:
    characters = _GB_CHARACTERS.findall(sample)
    frequent = sum(c in _FREQUENT_GB for c in characters)
    points = 0.0
    for c in characters:
        if c in _FREQUENT_GB:
            points += 1.0
        elif len(c) == 2 and c[1] >= 0xA1 and (0xB0 <= c[0] <= 0xD7 or c[0] in (0xA1, 0xA3)):
            points += 0.7
        elif len(c) == 2 and (c[0] < 0xA1 or (c[1] >= 0xA1 and 0xD8 <= c[0] <= 0xF7)):
            points += 0.2  # level 2, or the traditional characters that GBK added
    return _mean(points, frequent, characters)


def _big5_score(sample: bytes) -> float:
    characters = _BIG5_CHARACTERS.findall(sample)
    kana = sum(len(c) == 2 and c[0] in (0xA4, 0xA5) and c[1] >= 0xA1 for c in characters)
    if len(characters) >= 20 and kana > KANA_SHARE * len(characters):
        return 0.0
    frequent = sum(c in _FREQUENT_BIG5 for c in characters)
    points = 0.0
    for c in characters:
        if c in _FREQUENT_BIG5:
            points += 1.0
        elif len(c) == 2 and (0xA4 <= c[0] <= 0xC6 or c[0] == 0xA1):
            points += 0.7
        elif len(c) == 2 and c[0] >= 0xC9:
            points += 0.2
    return _mean(points, frequent, characters)


def _mean(points: float, frequent: int, characters: list[bytes]) -> float:
    """Points a character; 0 for many broken ones, or a long text that hardly uses the frequent ones."""
    number = len(characters)
    broken = sum(len(c) == 1 for c in characters)
    strange = number >= LONG and frequent < LEAST_FREQUENT * number
    return 0.0 if strange or broken > max(1, BROKEN_PAIRS * number) else points / number


_HIGH_RUNS = re.compile(rb"[\x80-\xff]+")
_LATIN_LETTERS = frozenset(range(0xC0, 0x100)) - {0xD7, 0xF7} | {0x8A, 0x8C, 0x8E, 0x9A, 0x9C, 0x9E, 0x9F}
_LATIN_SIGNS = frozenset(
    b"\x80\x82\x84\x85\x8b\x91\x92\x93\x94\x95\x96\x97\x99\x9b\xa0\xa3\xa7\xa9\xab\xae\xb0\xb4\xb5\xb7\xbb\xbf\xa1"
)


def _latin_score(sample: bytes) -> float:
    points, total = 0.0, 0
    for run in _HIGH_RUNS.findall(sample):
        total += len(run)
        if len(run) > 3:
            continue
        weight = {1: 1.0, 2: 0.4, 3: 0.3}[len(run)]
        for byte in run:
            points += weight if byte in _LATIN_LETTERS else 0.8 * weight if byte in _LATIN_SIGNS else 0.0
    return points / total


class Utf8Stream:
    """The bytes of a text of any size as UTF-8, chunk by chunk; UTF-8 itself passes through unchanged.

    Iterating raises `NotText` as `detect` does. Broken bytes of a UTF-8 source are left to whoever decodes
    the blocks; those of other encodings arrive as U+FFFD.

    Attributes:
        encoding: what was recognised; final once a non-ASCII byte was seen.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._decoder: codecs.IncrementalDecoder | None = None
        self.encoding = "utf-8"

    def __iter__(self) -> Iterator[bytes]:
        held, decided, at_start = b"", False, True
        for chunk in self._chunks:
            if decided:
                yield self._convert(chunk)
                continue
            held += chunk
            if len(held) < 4096:
                continue
            if held.isascii() and b"\0" not in held:
                if at_start:
                    detect(held)  # too many control characters?
            elif len(held) - _first_telling(held) < WINDOW:
                continue
            else:
                self._decide(held, complete=False)
                decided = True
            yield self._convert(held, at_start)
            held, at_start = b"", False
        if held:
            self._decide(held, complete=True)
            yield self._convert(held, at_start)
        if self._decoder is not None:
            yield self._decoder.decode(b"", True).encode("utf-8")

    def _decide(self, held: bytes, complete: bool) -> None:
        self.encoding = detect(held, complete)
        if self.encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(codec(self.encoding))(errors="replace")

    def _convert(self, chunk: bytes, at_start: bool = False) -> bytes:
        if self._decoder is None:
            return chunk
        text = self._decoder.decode(chunk)
        return (text.removeprefix("\ufeff") if at_start else text).encode("utf-8")


def _first_telling(data: bytes) -> int:
    """Where the first byte is that says something about the encoding."""
    found = re.search(rb"[\x00\x80-\xff]", data)
    return found.start() if found else len(data)
