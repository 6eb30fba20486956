"""Words of a text in any script: what figures and baselines compare."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

# Scripts that write no blanks between words: Han, kana, Thai, Lao, Burmese, Khmer. Each character stands alone.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
_LETTER = re.compile(r"[^\W\d_]")


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; characters of scripts without blanks one by one.

    For ASCII the same as the tokenizer of rouge-score without a stemmer; letters with accents and vowel signs stay
    in their words, which that tokenizer cuts there.
    """
    return list(_words(unicodedata.normalize("NFC", text).lower()))


def _words(text: str) -> Iterator[str]:
    for part in re.split(r"[\s_]+", text):
        if part.isascii() and part.isalnum():
            yield part
            continue
        for kind, run in groupby(part, _kind):
            if kind == "word":
                yield "".join(run)
            elif kind == "alone":
                yield from run


def _kind(character: str) -> str:
    if _UNSPACED.match(character):
        return "alone" if character.isalnum() or unicodedata.category(character)[0] == "M" else "between"
    return "word" if character.isalnum() or unicodedata.category(character)[0] == "M" else "between"


def without_blanks(text: str) -> bool:
    """Whether a text is mostly in a script without blanks between words (of its first 2,000 characters)."""
    sample = text[:2000]
    letters = len(_LETTER.findall(sample))
    return len(_UNSPACED.findall(sample)) > 0.3 * max(letters, 1)
