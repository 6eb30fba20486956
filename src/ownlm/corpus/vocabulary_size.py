"""How many tokens a corpus can pay for."""

from __future__ import annotations

import math
import re
from collections import Counter

SMALLEST, LARGEST = 512, 32_768
COVERED = 0.98  # the rest of the characters is rare: two or three bytes tokens each stand for them
MIN_COUNT = 8

# Scripts in which a character is about a word or a syllable: Han, Kana, Hangul.
WIDE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\U00020000-\U0002ffff]")


def choose_vocab_size(corpus_bytes: int, wide_characters: Counter[str] | None = None) -> tuple[int, str]:
    """(number of ids, one sentence why).

    The distinct words of a text grow about with the square root of its length (Heaps 1978, β ≈ 0.5), and a
    token is learnt only when it comes often: the power of two next to √bytes gives 1,024 for 1 MB, 4,096 for
    10 MB, 8,192 for 100 MB, 32,768 from 600 MB on; then every token comes some hundred times or more. More
    than 32,768 would make the output layer the largest part of the models trained on such corpora. Where
    characters are words (Chinese), the common ones, 98 % of the running text, each get a token and leave two
    fifths of the room to merges.

    Args:
        corpus_bytes: UTF-8 bytes of the whole corpus.
        wide_characters: Han, Kana and Hangul characters of a sample with their counts.
    """
    root = math.sqrt(max(corpus_bytes, 1))
    size = min(max(2 ** round(math.log2(root)), SMALLEST), LARGEST)
    why = f"the power of two next to the square root of {corpus_bytes:,} bytes ({SMALLEST} to {LARGEST:,})"
    common = _common(wide_characters or Counter())
    wanted = 272 + common * 5 // 3
    if wanted > size:
        size = min(2 ** math.ceil(math.log2(wanted)), LARGEST)
        why = (
            f"{common:,} characters make up {COVERED:.0%} of the Chinese, Japanese and Korean text; "
            "each gets a token, and merges two fifths of the room"
        )
    return size, why


def _common(counts: Counter[str]) -> int:
    """How many characters make up `COVERED` of the text (those too rare to be learnt not counted)."""
    goal, number = COVERED * counts.total(), 0
    for _, count in counts.most_common():
        if goal <= 0 or count < MIN_COUNT:
            break
        goal -= count
        number += 1
    return number
