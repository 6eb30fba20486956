"""Sentences of a text, for the baselines: the first one, or the one that shares most words with a question."""

from __future__ import annotations

import re

from ownlm.evaluation.tasks.words import words

_END = re.compile(
    r"[。！？；…]+[”’』」）\"')\]]*"  # Chinese and Japanese write no blank behind it
    r"|[.!?]+[”’\"')\]]*(?=\s|$)"
    r"|\n+"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|No|Nr|Fig|Eq|vs|etc|al|cf|approx|ca|bzw|e\.g|i\.e|z\.B|d\.h)\.$"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text with their punctuation, without the blanks around them."""
    found, start = [], 0
    for end in _END.finditer(text):
        part = text[start : end.end()]
        before_small = end[0] == "." and re.match(r"\s+[a-z]", text[end.end() :])
        if end[0] == "." and (before_small or _ABBREVIATION.search(part)):
            continue
        found.append(part.strip())
        start = end.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def first_sentence(text: str) -> str:
    """The first sentence; the text where it has none."""
    return next(iter(sentences(text)), text)


def closest_sentence(question: str, context: str) -> str:
    """The sentence of a context with the most words of a question; the first of them."""
    asked = set(words(question))
    return max(sentences(context), key=lambda sentence: len(asked & set(words(sentence))), default="")
