"""Repetition inside a document: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, table A1.

| repeated | limit |
|---|---|
| lines, paragraphs (of their number) | 0.30 |
| lines, paragraphs (of the characters) | 0.20 |
| most frequent 2-, 3-, 4-gram (of the characters) | 0.20, 0.18, 0.16 |
| 5- to 10-grams (of the characters) | 0.15, 0.14, 0.13, 0.12, 0.11, 0.10 |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

TOP = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

_PARAGRAPHS = re.compile(r"\n\s*\n")
_NOT_BLANK = re.compile(r"\S")


def repetition(text: str, language: str) -> str | None:
    """Which limit of the table a document passes, or None.

    Only second and later occurrences count as repeated; an n-gram that occurs once is not "most frequent".
    Chinese has about 1.7 characters a word: there an n-gram of words is taken as one of 2n characters.
    """
    for what, parts in (("lines", text.split("\n")), ("paragraphs", _PARAGRAPHS.split(text))):
        number, characters = duplicate_shares([part.strip() for part in parts if part.strip()])
        if number > 0.3:
            return f"more than 30 % of {what} are repeated"
        if characters > 0.2:
            return f"more than 20 % of characters in repeated {what}"
    words = text.split() if language != "zh" else _NOT_BLANK.findall(text)
    each = 1 if language != "zh" else 2
    total = sum(map(len, words))
    for n, limit in TOP.items():
        if top_share(words, n * each, total) > limit:
            return f"most frequent {n}-gram has more than {limit:.0%} of characters"
    for n, limit in DUPLICATE.items():
        if duplicate_ngram_share(words, n * each, total) > limit:
            return f"repeated {n}-grams have more than {limit:.0%} of characters"
    return None


def duplicate_shares(parts: Sequence[str]) -> tuple[float, float]:
    """(share of the parts, share of their characters) that were seen before in the document."""
    seen: set[str] = set()
    repeated = characters = 0
    for part in parts:
        if part in seen:
            repeated += 1
            characters += len(part)
        seen.add(part)
    return repeated / max(1, len(parts)), characters / max(1, sum(map(len, parts)))


def top_share(words: Sequence[str], n: int, total: int) -> float:
    """Share of the characters that the most frequent n-gram has, if it occurs twice or more."""
    counts = Counter(zip(*(words[i:] for i in range(n))))
    if not counts:
        return 0.0
    gram, number = counts.most_common(1)[0]
    return number * sum(map(len, gram)) / total if number > 1 else 0.0


def duplicate_ngram_share(words: Sequence[str], n: int, total: int) -> float:
    """Share of the characters inside n-grams that occurred before, overlaps counted once."""
    seen: set[int] = set()
    characters = covered = 0  # `covered`: words before this index are counted already
    for start, gram in enumerate(zip(*(words[i:] for i in range(n)))):
        key = hash(gram)
        if key in seen:
            characters += sum(map(len, words[max(start, covered) : start + n]))
            covered = start + n
        seen.add(key)
    return characters / max(1, total)
