"""From text to the terms that are compared: word stems, and pairs of characters where a script has no spaces."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache

from ownlm.search.english import COMMON, stem

# Chinese, Japanese, Korean, Thai, Lao, Burmese, Khmer: words are not, or not only, what stands between spaces.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
SINGLE = 0.5  # weight of a single character beside 1 for a pair: it decides only where pairs do not

# Words that ask, and particles around them; taken out of questions only, where pairs across them match nothing.
ASKING = re.compile(
    "为什么|為什麼|為甚麼|什么时候|什麼時候|什么|什麼|甚麼|哪一[个年种位家]|哪一[個種]|哪些|哪[个里儿位年种家]|哪[個裡兒種]|哪"
    "|多少|怎么样|怎麼樣|怎么|怎麼|怎样|怎樣|如何|何时|何時|何地|何种|何種|为何|為何|是否|几[个年种位]|幾[個種]|谁|誰|吗|嗎|呢"
    "|なぜ|どこ|いつ|だれ|どの|どう|何|ですか|ますか"
)
_CACHED = 1 << 17  # words; most of a text is made of fewer


def terms(text: str) -> list[str]:
    """The terms of a text in its order.

    A word is case-folded, its accents taken off, English endings too; words of grammar are left out. A run of
    characters of an unspaced script gives each character and each pair of neighbours.
    """
    found: list[str] = []
    for match in _runs().finditer(text):
        if match.lastgroup == "unspaced":
            found += _characters(match[0])
        elif term := word_term(match[0]):
            found.append(term)
    return found


def question_terms(question: str) -> dict[str, float]:
    """The weight of every term that a question is searched by; empty when it has only words of grammar."""
    weights: dict[str, float] = {}
    for term in terms(ASKING.sub(" ", question)) or terms(question):
        weights[term] = weights.get(term, 0.0) + (SINGLE if is_single(term) else 1.0)
    return weights


def words(text: str) -> Iterator[tuple[str, str]]:
    """(word as it stands, its term) of every word that is no word of grammar; unspaced scripts have none."""
    for match in _runs().finditer(text):
        if match.lastgroup == "word" and (term := word_term(match[0])):
            yield match[0], term


def is_unspaced(term: str) -> bool:
    """Whether a term is one or two characters of an unspaced script."""
    return bool(_unspaced().match(term))


def is_single(term: str) -> bool:
    """Whether a term is one character of an unspaced script."""
    return len(term) == 1 and is_unspaced(term)


def marked(text: str, wanted: frozenset[str]) -> Iterator[tuple[int, int]]:
    """(begin, end) of every place of a text that stands for one of the wanted terms; they do not overlap.

    Of an unspaced script pairs are looked for, or single characters where no pair is wanted.
    """
    pairs = any(len(term) == 2 and is_unspaced(term) for term in wanted)
    for match in _runs().finditer(text):
        if match.lastgroup != "unspaced":
            if word_term(match[0]) in wanted:
                yield match.span()
            continue
        begin = end = -1
        for place in range(match.start(), match.end()):
            for size in (2,) if pairs else (1,):
                part = unicodedata.normalize("NFKC", text[place : min(place + size, match.end())])
                if part not in wanted:
                    continue
                if place > end and begin >= 0:
                    yield begin, end
                    begin = -1
                begin, end = place if begin < 0 else begin, min(place + size, match.end())
        if begin >= 0:
            yield begin, end


@lru_cache(_CACHED)
def word_term(word: str) -> str:
    """The term of a word, "" for a word of grammar."""
    if not word.isascii():
        apart = unicodedata.normalize("NFKD", word)
        word = unicodedata.normalize("NFKC", "".join(c for c in apart if not 0x300 <= ord(c) <= 0x36F))
    word = re.sub("['\u2019]s?$", "", word.casefold())
    if word in COMMON:
        return ""
    return stem(word) if word.isascii() and word.isalpha() else word


def _characters(run: str) -> Iterator[str]:
    run = unicodedata.normalize("NFKC", run)
    for place, character in enumerate(run):
        yield character
        if place + 1 < len(run):
            yield run[place : place + 2]


@cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(f"[{UNSPACED}]")


@cache
def _runs() -> re.Pattern[str]:
    """Runs of an unspaced script, and words: letters and digits with the marks that stand on or behind them."""
    marks = "".join(
        chr(code)
        for code in range(0x300, sys.maxunicode + 1 if sys.maxunicode < 0x10000 else 0x1E000)
        if unicodedata.category(chr(code)) in ("Mn", "Mc") and not _unspaced().match(chr(code))
    )
    letter = f"[^\\W_{UNSPACED}]"
    return re.compile(
        f"(?P<unspaced>[{UNSPACED}]+)|(?P<word>{letter}(?:{letter}|[{re.escape(marks)}])*(?:['\u2019]{letter}+)*)"
    )
