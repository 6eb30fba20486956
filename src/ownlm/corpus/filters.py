"""Quality filters, each from one paper, none applied unless named.

They were made for English web pages: poetry, tables, code and lists fail them for good reason. A document
in a language that a filter does not fit is kept and counted as not judged (`unfit`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ownlm.console.errors import UsageError, did_you_mean
from ownlm.corpus.languages import han_characters, language_of
from ownlm.corpus.repetition import duplicate_shares, repetition

Judge = Callable[[str, str], "str | None"]

_NAMES = {"en": "English", "zh": "Chinese", "spaced": "other languages with spaces"}
_BULLET = re.compile(r"\s*[•●○■□▪▫‣⁃∙◦◆*·-]\s*")
_ELLIPSIS = re.compile(r"\.\.\.|…")
_GOPHER_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_C4_TERMINAL = (".", "!", "?", '"', "”")
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?:\s|$)")
_C4_POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
# FineWeb's list is long; these end practically all sentences of the languages judged here.
_TERMINAL = tuple(".!?\"'”’»:;…。！？；：」』）)、，")


@dataclass(frozen=True, slots=True)
class Filter:
    """A named rule.

    Attributes:
        name: what is typed.
        paper: where it comes from.
        languages: of `language_of`; documents in others are not judged.
        judge: (text, language) → why the document is dropped, or None.
    """

    name: str
    paper: str
    languages: tuple[str, ...]
    judge: Judge


def judge(name: str, text: str) -> str | None:
    """Why a filter drops a document, or None when it passes or is not judged.

    Args:
        name: a key of `FILTERS`.
        text: the normalised document.

    Raises:
        UsageError: no such filter.
    """
    rule = known(name)
    language = language_of(text)
    return rule.judge(text, language) if language in rule.languages else None


def unfit(name: str, text: str) -> str | None:
    """ "not judged: …" when a filter does not fit the language of a document, else None."""
    rule = known(name)
    if language_of(text) in rule.languages:
        return None
    return f"not judged: not {' or '.join(_NAMES[language] for language in rule.languages)}"


def known(name: str) -> Filter:
    """The filter of this name.

    Raises:
        UsageError: no such filter.
    """
    if name not in FILTERS:
        close = did_you_mean(name, FILTERS)
        raise UsageError(f'no filter "{name}".{close}', why=f"There are {', '.join(FILTERS)}.")
    return FILTERS[name]


def gopher(text: str, language: str) -> str | None:
    """Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, "Quality Filtering".

    50 to 100,000 words; mean word length 3 to 10; at most 0.1 "#" or ellipses a word; at most 90 % of lines
    start with a bullet, at most 30 % end with an ellipsis; 80 % of words or more have a letter; two or more
    of the words the, be, to, of, and, that, have, with.
    Chinese: each character counts as a word; the rules on word length, letters and stop words are left out
    (classical Chinese has other ones).
    """
    words = text.split()
    count = len(words) if language == "en" else han_characters(text)
    if not 50 <= count <= 100_000:
        return "fewer than 50 words" if count < 50 else "more than 100,000 words"
    if text.count("#") > 0.1 * count:
        return "more than 0.1 # a word"
    if len(_ELLIPSIS.findall(text)) > 0.1 * count:
        return "more than 0.1 ellipses a word"
    lines = [line for line in text.split("\n") if line.strip()]
    if sum(_BULLET.match(line) is not None for line in lines) > 0.9 * len(lines):
        return "more than 90 % of lines start with a bullet"
    if sum(line.rstrip().endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        return "more than 30 % of lines end with an ellipsis"
    if language != "en":
        return None
    length = sum(map(len, words)) / count
    if not 3 <= length <= 10:
        return "mean word length not between 3 and 10"
    if sum(any(map(str.isalpha, word)) for word in words) < 0.8 * count:
        return "fewer than 80 % of words have a letter"
    if len(_GOPHER_STOP_WORDS.intersection(map(str.lower, words))) < 2:
        return "fewer than two stop words"
    return None


def c4(text: str, language: str) -> str | None:
    """Raffel et al. 2020 (JMLR 21:140), section 2.2.

    Drops a page with "lorem ipsum" or "{", and one of which fewer than 3 sentences are left when only lines
    count that end in . ! ? or a quotation mark, have at least 5 words, and speak neither of Javascript nor of
    cookies or policies. Different here: such lines are not cut out of a page that is kept, sentences
    are counted by their end marks, and the list of obscene words is not applied.
    """
    lowered = text.lower()
    if "lorem ipsum" in lowered:
        return "lorem ipsum"
    if "{" in text:
        return "curly bracket"
    sentences = 0
    for line in lowered.split("\n"):
        line = _CITATION.sub("", line).strip()
        if not line.endswith(_C4_TERMINAL) or line.endswith("...") or len(line.split()) < 5:
            continue
        if "javascript" in line or any(phrase in line for phrase in _C4_POLICY):
            continue
        sentences += len(_SENTENCE_END.findall(line))
        if sentences >= 3:
            return None
    return "fewer than 3 sentences"


def fineweb(text: str, language: str) -> str | None:
    """Penedo et al. 2024 (arXiv 2406.17557), section 3.6 (their filters beside Gopher's and C4's).

    Drops a document of which at most 12 % of the lines end with punctuation, at least 67 % are shorter than
    30 characters, or at least 10 % of the characters stand in repeated lines (the code published with it has
    1 %). Chinese: lines shorter than 15 characters, which say about as much; `，` and `、` end lines too.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return "empty"
    if sum(line.endswith(_TERMINAL) for line in lines) <= 0.12 * len(lines):
        return "at most 12 % of lines end with punctuation"
    short = 30 if language != "zh" else 15
    if sum(len(line) < short for line in lines) >= 0.67 * len(lines):
        return "at least 67 % of lines are short"
    if duplicate_shares(lines)[1] >= 0.1:
        return "at least 10 % of characters in repeated lines"
    return None


FILTERS: dict[str, Filter] = {
    rule.name: rule
    for rule in (
        Filter("gopher", "Rae et al. 2021, arXiv 2112.11446, A.1.1", ("en", "zh"), gopher),
        Filter(
            "gopher-repetition",
            "Rae et al. 2021, arXiv 2112.11446, A.1.1",
            ("en", "zh", "spaced"),
            repetition,
        ),
        Filter("c4", "Raffel et al. 2020, JMLR 21:140, 2.2", ("en",), c4),
        Filter("fineweb", "Penedo et al. 2024, arXiv 2406.17557, 3.6", ("en", "zh", "spaced"), fineweb),
    )
}
