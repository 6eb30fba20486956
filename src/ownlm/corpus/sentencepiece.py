"""A sentencepiece model as a Hugging Face `tokenizer.json` that gives the same ids.

The merges of a BPE model are not in its file: they follow from the scores. Measured against sentencepiece 0.2.3 in
tests/peers/test_tokenizers.py.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ownlm.console.errors import Refused
from ownlm.corpus.sentencepiece_model import SPACE, Piece, PieceKind, SentencepieceModel, check, read_model
from ownlm.corpus.tokenizer_spec import added_token, bpe_section, metaspace, replace_step, template

__all__ = ["Piece", "PieceKind", "SentencepieceModel", "read_model", "tokenizer_files", "tokenizer_spec"]


def merges(pieces: Sequence[Piece]) -> list[list[str]]:
    """The merges of a BPE model, first to last: every way to make a piece of two, the best score first.

    Control, unknown and byte pieces are never made from text.
    """
    known = {piece.text for piece in pieces if piece.kind is PieceKind.NORMAL}
    best = sorted(
        (index for index, piece in enumerate(pieces) if piece.kind is PieceKind.NORMAL),
        key=lambda index: (-pieces[index].score, index),
    )
    found = []
    for index in best:
        text = pieces[index].text
        for cut in range(1, len(text)):
            if text[:cut] in known and text[cut:] in known:
                found.append([text[:cut], text[cut:]])
    return found


def tokenizer_spec(model: SentencepieceModel, *, after_specials: bool = True) -> dict[str, Any]:
    """The content of a `tokenizer.json` that gives the model's ids; nothing is put before a text.

    Args:
        model: a checked model.
        after_specials: put the space before a text also before what follows a special token inside of it;
            sentencepiece itself knows no special tokens in a text.
    """
    special = (PieceKind.CONTROL, PieceKind.UNKNOWN)
    symbols = [piece.text for piece in model.pieces if piece.kind is PieceKind.USER_DEFINED]
    steps: list[dict[str, Any]] = []
    if model.charsmap:
        table = base64.b64encode(model.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    if model.collapse_spaces:
        steps += [replace_step({"Regex": r"\A +| +\z"}, ""), replace_step({"Regex": " {2,}"}, " ")]
    before: dict[str, Any] | None = None
    prefix: list[dict[str, Any]] = []
    if model.dummy_prefix and symbols:
        # Symbols are looked for after this step, so that the space stands before the whole text. The step runs over
        # each symbol by itself too, which must stay as it is (and so does a text that is only a symbol).
        only = "|".join(map(re.escape, symbols))
        prefix = [replace_step({"Regex": rf"\A(?=[\s\S])(?!(?:{only})\z)"}, SPACE)]
    elif model.dummy_prefix and (after_specials or model.collapse_spaces):
        prefix = [{"type": "Prepend", "prepend": SPACE}]
    elif model.dummy_prefix:
        # The first Metaspace puts a space before the text only, whatever it starts with (its own spaces are ▁ by
        # then); the second makes it a ▁.
        before = {"type": "Sequence", "pretokenizers": [metaspace(" ", "first"), metaspace(SPACE, "never")]}
    steps += [replace_step({"String": " "}, SPACE), *prefix]
    after: list[dict[str, Any]] = [
        replace_step({"String": SPACE}, " "),
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if model.dummy_prefix:
        after.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(
                index,
                piece.text,
                special=piece.kind in special,
                normalized=piece.kind is PieceKind.USER_DEFINED,
            )
            for index, piece in enumerate(model.pieces)
            if piece.kind in (*special, PieceKind.USER_DEFINED)
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": before,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": after},
        "model": _model_section(model),
    }


def _model_section(model: SentencepieceModel) -> dict[str, Any]:
    if model.unigram:
        return {
            "type": "Unigram",
            "unk_id": model.unk_id,
            "vocab": [[piece.text, piece.score] for piece in model.pieces],
            "byte_fallback": model.byte_fallback,
        }
    return bpe_section(
        {piece.text: index for index, piece in enumerate(model.pieces)},
        merges(model.pieces),
        unk_token=model.pieces[model.unk_id].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def tokenizer_files(pieces: list[Piece], folder: Path, *, where: object = "tokenizer.model") -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` of a BPE tokenizer as Llama 2 has it.

    A space and <s> are put before a text; characters without a piece become bytes where all 256 are there.

    Args:
        pieces: index = id; 0 is <unk>, 1 <s>, 2 </s>.
        folder: an existing one.
        where: what error messages name.

    Raises:
        Refused: pieces that make no tokenizer.
    """
    count = sum(piece.kind is PieceKind.BYTE for piece in pieces)
    model = SentencepieceModel(pieces, byte_fallback=count == 256, where=where)
    check(model)
    names = {"unk_token": model.piece(0), "bos_token": model.piece(1), "eos_token": model.piece(2)}
    if None in names.values():
        raise Refused("the first three pieces are not <unk>, <s> and </s>.", where=where)
    spec = tokenizer_spec(model)
    spec["post_processor"] = template([(str(names["bos_token"]), 1)])
    # With LlamaTokenizer transformers would build the tokenizer anew, with another rule for a leading space.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names, "clean_up_tokenization_spaces": False}
    for name, content in (("tokenizer.json", spec), ("tokenizer_config.json", config)):
        text = json.dumps(content, ensure_ascii=False, indent=None if name == "tokenizer.json" else 2)
        (folder / name).write_text(text + "\n", encoding="utf-8", newline="")
