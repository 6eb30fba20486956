"""Small texts for the tests: words of no language, Chinese characters, folders of them."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = [f"{a}{b}{c}" for a in "bdklmnrst" for b in "aeiou" for c in ("nd", "st", "rk", "l")]
HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 600)]


def english(seed: int, words: int = 120) -> str:
    """Lines of eight words."""
    source = random.Random(seed)
    lines = [" ".join(source.choices(WORDS, k=8)) for _ in range(words // 8)]
    return "\n".join(lines) + "\n"


def chinese(seed: int, characters: int = 120) -> str:
    """Lines of two five-character verses."""
    source = random.Random(seed)
    verses = ["".join(source.choices(HAN, k=5)) for _ in range(characters // 5)]
    return "".join(f"{a},{b}。\n" for a, b in zip(verses[::2], verses[1::2]))


def folder_of(path: Path, documents: int) -> Path:
    """A folder of text files, English and Chinese in turn."""
    path.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        text = chinese(number) if number % 2 else english(number)
        (path / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    return path


def contents(corpus: Path) -> dict[str, bytes]:
    """The files of a corpus."""
    return {str(file.relative_to(corpus)): file.read_bytes() for file in corpus.rglob("*") if file.is_file()}
