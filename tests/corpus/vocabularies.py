"""Small vocabularies trained here, the same ids from `tokenizers` alone, and texts that are hard to cut."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import tokenizers
from hypothesis import strategies as st

from ownlm.corpus.tokenizer import Tokenizer
from ownlm.corpus.train_tokenizer import Kind, train_tokenizer

PHRASES = [
    "春眠不觉晓",
    "处处闻啼鸟",
    "夜来风雨声",
    "花落知多少",
    "不知",
    "春风",
    "的",
    "人间",
    "，不",
    "。\n",
    "《春晓》",
]
ENGLISH = [
    "The quick brown fox",
    " doesn't",
    " they'll",
    " I've",
    "running",
    " 1999",
    "...\n",
    ' "quoted"',
    "\t",
    "  ",
]
KANA = ["こんにちは", "カタカナ", "한국어", "🙂🎉", "naïve", "e\u0301", "\u3000"]

# Each piece once as it is and next to any other: what stands beside it decides where a pre-token ends.
HARD = [
    *PHRASES, *ENGLISH, *KANA, "春", "晓", "A", "z", "Ω", "é", "я", "אב", "ไทย", "\u4db6", "\u9fa6", "\U00020000",
    " ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", " \n", "\u00a0", "\u200b", "\u2028", "\x85", "\x0b",
    ".", ",", "，", "。", "—", "…", "“", "’", "'", "'s", "'S", "'re", "'ſ", "'LL", "·", "\ufffd", "\ue000",
    "0", "42", "３", "〇", "Ⅷ", "²", "①", "٣", "\x00", "\x1f", "\x7f", "\u0301", "\u200d", "👩\u200d👧", "🇨🇳", "ſ", "K",
]  # fmt: skip

# Pieces of which the array way needs no help: Han, letters, digits, punctuation, spaces, line ends.
PLAIN = [
    *PHRASES, "春", "晓", "的", "A", "the", "z", "\u4db5", "\u9fa5", " ", "  ", "   ", "\n", "\r", "\r\n", "\n\n",
    ".", ",", "，", "。", "—", "…", "“", "·", "\ufffd", "!", "！", "《", "0", "42", "３", "〇",
]  # fmt: skip


def plain_texts(more: list[str] | None = None, length: int = 30) -> st.SearchStrategy[str]:
    """Texts of `PLAIN` pieces and of `more`."""
    return st.lists(st.sampled_from(PLAIN + (more or [])), max_size=length).map("".join)


def hard_texts(more: list[str] | None = None, length: int = 30) -> st.SearchStrategy[str]:
    """Texts of `HARD` pieces, of any other characters (no surrogates), and of `more`."""
    pieces = st.one_of(
        st.sampled_from(HARD + (more or [])),
        st.sampled_from(PHRASES),
        st.text(st.characters(codec="utf-8"), max_size=3),
    )
    return st.lists(pieces, max_size=length).map("".join)


def training_text(seed: int = 0, pieces: int = 6000) -> str:
    """Phrases in random order: some pairs and triples of characters come again and again."""
    return "".join(random.Random(seed).choices(PHRASES + ENGLISH + KANA, k=pieces))


def chinese_text(seed: int = 0, pieces: int = 300) -> str:
    """The Chinese phrases alone."""
    return "".join(random.Random(seed).choices(PHRASES, k=pieces))


@lru_cache
def trained(kind: Kind = "bpe", vocab_size: int | None = 480) -> Tokenizer:
    """A tokenizer trained on `training_text`."""
    text = training_text()
    return train_tokenizer([text], vocab_size=vocab_size, kind=kind, corpus_bytes=len(text.encode()))


class Reference:
    """`tokenizers` itself, opened from the file of a tokenizer under test."""

    def __init__(self, text: str) -> None:
        self.backend = tokenizers.Tokenizer.from_str(text)
        self.backend.encode_special_tokens = True

    def ids(self, text: str) -> list[int]:
        """Ids of a text that has no surrogates."""
        found: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return found

    def joined(self, texts: list[str], end_id: int) -> list[int]:
        """Ids of all texts, the end token before each."""
        return [index for text in texts for index in (end_id, *self.ids(text))]


def opened(spec: dict[str, Any]) -> Tokenizer:
    """A tokenizer made from a changed specification."""
    import json

    return Tokenizer(json.dumps(spec))
