"""Sections of a Hugging Face `tokenizer.json`, as its program `tokenizers` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def replace_step(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def metaspace(replacement: str, scheme: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": replacement, "prepend_scheme": scheme, "split": False}


def added_token(index: int, content: str, **flags: bool) -> dict[str, Any]:
    """An entry of `added_tokens`; flags not given are false."""
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": index, "content": content, **{name: flags.get(name, False) for name in names}}


def template(prefix: Sequence[tuple[str, int]], suffix: Sequence[tuple[str, int]] = ()) -> dict[str, Any]:
    """A post-processor that puts special tokens (name, id) before and after a text."""

    def around(sequence: str, type_id: int, start: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        def special(token: tuple[str, int]) -> dict[str, Any]:
            return {"SpecialToken": {"id": token[0], "type_id": type_id}}

        return [
            *map(special, start),
            {"Sequence": {"id": sequence, "type_id": type_id}},
            *map(special, suffix),
        ]

    single = around("A", 0, prefix)
    # A second text gets its <s> again; BERT's [CLS] comes once.
    second = around("B", 1, () if suffix else prefix)
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single + second,
        "special_tokens": {
            name: {"id": name, "ids": [index], "tokens": [name]} for name, index in (*prefix, *suffix)
        },
    }


def bpe_section(vocabulary: dict[str, int], merges: list[list[str]], **settings: Any) -> dict[str, Any]:
    """The model of a BPE tokenizer; without `settings` as GPT-2 has it."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **settings,
        "vocab": vocabulary,
        "merges": merges,
    }
