"""Where the regex engines of `tokenizers` (Oniguruma) and `tiktoken` (Rust) know different characters.

Both follow Unicode, each release some version of it. With the tested releases every class agrees over all
code points; other releases are compared when a tokenizer is opened, by samples, and in full only if a
sample differs. What the two read differently for other reasons is not compared but refused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

_CLASS = re.compile(r"\\[pP]\{\^?\w+\}|\\[sSdDwW]|\(\?i:[^)]*\)")
# Every 16th code point past ASCII: new scripts come in blocks of at least 16. Left out are the ranges that
# have not changed for twenty years, and planes without characters. ſ and the Kelvin sign fold to s and k.
_SAMPLE = [0x17F, 0x212A, *range(0x80, 0x3400, 16), *range(0xA000, 0xAC00, 16), *range(0xF900, 0x20000, 16)]
_SAMPLE += [0x4DB6, 0x9FF0, 0x9FFD, 0x2A6D7, 0x2A6DE, 0x2B735, 0x2B739, 0x2B73A, *range(0x2CEA0, 0x33FFF, 64)]

_HARMLESS = re.compile(r"\\[pP]\{\^?\w+\}|\\[sSdDwWrntf]|\\[^\w]")
_SET = re.compile(r"\[[^\[\]]*\]")
# Oniguruma calls a group with \g and knows names, conditions and sets in sets; ^ and $ are its line ends, {1,3}+
# is a repeated repetition, and flags in the middle reach to the end of the alternatives. Rust's engine takes
# most of these for something else, without a word.
_UNLIKE = re.compile(r"[\\$^\[]|\(\?(?!:|i:|!|=|<!|<=)|\}\+|\{(?!\d+(?:,\d*)?\})|\(\*")


def reads_alike(pattern: str) -> bool:
    """Whether a regex consists only of what both engines read in the same way."""
    rest = _HARMLESS.sub("", pattern)
    return not any("&&" in found for found in _SET.findall(rest)) and not _UNLIKE.search(_SET.sub("", rest))


@functools.cache
def differing_characters(pattern: str) -> re.Pattern[str] | None:
    """A regex for the characters that the engines sort differently in this pattern; None: there are none.

    Args:
        pattern: a pre-tokenisation regex; its classes (`\\p{L}`, `\\s`, `(?i:...)`) are compared one by one.
    """
    classes = sorted(set(_CLASS.findall(pattern)))
    if not any(differences(each, _SAMPLE) for each in classes):
        return None
    every = [*range(0xD800), *range(0xE000, 0x110000)]
    found = sorted(set().union(*(differences(each, every) for each in classes)))
    return re.compile("[" + "".join(map(re.escape, found)) + "]") if found else None


def differences(expression: str, points: Sequence[int]) -> set[str]:
    """The characters, among these code points, that only one of the two engines matches.

    Args:
        expression: a regex for one character, or a group of alternatives of which single letters matter.
        points: code points, no surrogates.
    """
    if expression.startswith("(?i:"):
        letters = "".join(sorted(set(re.findall(r"[a-z]", expression[4:].lower()))))
        expression = f"(?i:[{letters}])"
    text = "".join(map(chr, points))
    return _matched_by_oniguruma(expression, text) ^ _matched_by_rust(expression, text)


def _matched_by_oniguruma(expression: str, text: str) -> set[str]:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(expression), "removed", invert=True)
    return {character for piece, _ in split.pre_tokenize_str(text) for character in piece}


def _matched_by_rust(expression: str, text: str) -> set[str]:
    import tiktoken

    # With bytes for tokens, the ids are the bytes of whatever the pattern matched: the rest of the text is
    # skipped.
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=expression, mergeable_ranks=ranks, special_tokens={})
    return set(bytes(encoding.encode_ordinary(text)).decode("utf-8"))
