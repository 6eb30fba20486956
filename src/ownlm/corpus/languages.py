"""Which quality rules fit a text: those for English, for Chinese, for languages with spaces, or none."""

from __future__ import annotations

import re

SAMPLE = 20_000  # characters looked at

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile("[\u3041-\u30ff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer
_LETTER = re.compile(r"[^\W\d_]")
_ENGLISH = frozenset(
    "the of and to in is that it was for on are with as be this have from or had by not but what".split()  # noqa: SIM905
)
_OTHER_LATIN = frozenset(
    """der die das und ist nicht ein eine mit den von zu auf sich dem le la les et des est une pour que
    pas el los las por con una del se il che di per non della een het van en op niet os do da em
    um""".split()  # noqa: SIM905
)


def language_of(text: str) -> str:
    """ "en", "zh", "spaced" (words are separated by blanks) or "other", from the first 20,000 characters."""
    sample = text[:SAMPLE]
    letters = len(_LETTER.findall(sample))
    if not letters:
        return "other"
    han, kana = len(_HAN.findall(sample)), len(_KANA.findall(sample))
    if han + kana > 0.3 * letters:
        return "zh" if kana <= 0.05 * (han + kana) else "other"
    if len(_UNSPACED.findall(sample)) > 0.3 * letters:
        return "other"
    if len(_LATIN.findall(sample)) < 0.9 * letters:
        return "spaced"
    words = sample.lower().split()
    english, other = sum(w in _ENGLISH for w in words), sum(w in _OTHER_LATIN for w in words)
    return (
        "spaced" if other > english else "en"
    )  # word lists without stop words count as English: they are judged


def han_characters(text: str) -> int:
    """How many Chinese characters a text has."""
    return len(_HAN.findall(text))
