"""Marian's tokenizers (Opus-MT): two sentencepiece models, and a vocabulary that gives their pieces other ids.

`source.spm` cuts a text into pieces, `vocab.json` gives each its id (that of <unk> where it has none), and what is
generated is read back through `vocab.json`. The ids are those of `MarianTokenizer` of transformers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ownlm.console.errors import Refused
from ownlm.corpus import special_tokens
from ownlm.corpus.sentencepiece import read_model, tokenizer_spec
from ownlm.corpus.sentencepiece_model import SPACE, PieceKind
from ownlm.corpus.tokenizer import Ids, Tokenizer
from ownlm.corpus.tokenizer_spec import added_token
from ownlm.corpus.vocabulary import MAX_VOCABULARY, without_surrogates

if TYPE_CHECKING:
    import tokenizers

FILES = ("source.spm", "target.spm", "vocab.json")
UNKNOWN, END, PAD = "<unk>", "</s>", "<pad>"
# A private character: no text that is read spells a token that only the output has.
_HIDDEN = "\U000f0000"


def is_marian(folder: Path) -> bool:
    """Whether a folder holds such a tokenizer and no other one."""
    return not (folder / "tokenizer.json").is_file() and all((folder / name).is_file() for name in FILES)


@dataclass(frozen=True)
class Whole:
    """A text with </s> behind it, as `tokenizers.Encoding` shows it."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    special_tokens_mask: list[int]


class MarianTokenizer(Tokenizer):
    """Text to ids by the source's pieces, ids to text by the vocabulary.

    Args:
        folder: with `FILES`.

    Raises:
        Refused: damaged files, or separate vocabularies for source and target.
    """

    def __init__(self, folder: Path) -> None:
        where = folder / "vocab.json"
        config = special_tokens.read_config(folder)
        if config.get("separate_vocabs"):
            raise Refused("separate vocabularies of source and target are not read.", where=folder)
        vocabulary = special_tokens.read_json(where, unique=True)
        _check(vocabulary, where)
        for name, token in (("unk", UNKNOWN), ("eos", END), ("pad", PAD)):
            config.setdefault(f"{name}_token", token)
        super().__init__(json.dumps(_spec(folder, vocabulary)), config, where=where)
        self._vocabulary, self._unknown = vocabulary, vocabulary[UNKNOWN]
        self.tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        self._bytes = [_bytes(token) for token in self.tokens]

    def encode(self, text: str, *, specials: bool = False) -> Ids:
        """Token ids of a text, uint32 [tokens], without </s>; it spells no special tokens."""
        return np.array(
            self._ids(self.backend.encode(without_surrogates(text), add_special_tokens=False)), np.uint32
        )

    def encode_slowly(self, text: str) -> Ids:
        """The same."""
        return self.encode(text)

    def encode_whole(self, text: str, *, specials: bool = False) -> Any:
        """A text with </s> behind it; >>deu<< at its start is one token."""
        code = text[: text.find("<<") + 2] if text.startswith(">>") and "<<" in text else ""
        found = self.backend.encode(without_surrogates(text[len(code) :]), add_special_tokens=False)
        ids, offsets = self._ids(found), [(a + len(code), b + len(code)) for a, b in found.offsets]
        if code:
            ids, offsets = [self._vocabulary.get(code, self._unknown), *ids], [(0, len(code)), *offsets]
        return Whole([*ids, self.eos_id], [*offsets, (len(text), len(text))], [*[0] * len(ids), 1])

    def _ids(self, found: tokenizers.Encoding) -> list[int]:
        """Ids of pieces by their text: an unknown stretch of a text counts as a piece too, as in transformers."""
        return [self._vocabulary.get(piece, self._unknown) for piece in found.tokens]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copy the three files and write `tokenizer_config.json`."""
        target, source = Path(folder), Path(str(self.where)).parent
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (target / name).write_bytes((source / name).read_bytes())
        config = json.dumps(self.config, ensure_ascii=False, indent=2) + "\n"
        (target / "tokenizer_config.json").write_text(config, encoding="utf-8", newline="")

    def __reduce__(self) -> tuple[Any, ...]:
        return MarianTokenizer, (Path(str(self.where)).parent,)


def _check(vocabulary: dict[str, Any], where: Path) -> None:
    ids = sorted(index for index in vocabulary.values() if type(index) is int)
    if ids != list(range(len(vocabulary))) or len(ids) > MAX_VOCABULARY:
        raise Refused("the ids of the vocabulary are not 0, 1, 2, …", where=where)
    missing = [token for token in (UNKNOWN, END) if token not in vocabulary]
    if missing:
        raise Refused(f"has no {' and no '.join(missing)}.", where=where)


def _spec(folder: Path, vocabulary: dict[str, int]) -> dict[str, Any]:
    """A `tokenizer.json` whose ids are the vocabulary's; behind them pieces that it lacks."""
    model = read_model(folder / "source.spm")
    if not model.unigram:
        raise Refused("not a unigram model, as Marian's are.", where=folder / "source.spm")
    spec = tokenizer_spec(model)
    normal = {piece.text: piece for piece in model.pieces if piece.kind is PieceKind.NORMAL}
    # No piece of the text, so its score decides nothing but what an unknown character costs.
    least = min((piece.score for piece in normal.values()), default=0.0)
    rows = [[_HIDDEN + token, least] for token in sorted(vocabulary, key=vocabulary.__getitem__)]
    for text, piece in normal.items():
        if text in vocabulary:
            rows[vocabulary[text]] = [text, piece.score]
        else:
            rows.append([text, piece.score])
    unknown = vocabulary[UNKNOWN]
    for token in (UNKNOWN, END, *([PAD] if PAD in vocabulary else [])):
        rows[vocabulary[token]] = [token, least]
    spec["model"] |= {"vocab": rows, "unk_id": unknown}
    spec["added_tokens"] = [
        added_token(vocabulary[token], token, special=True)
        for token in (UNKNOWN, END, PAD)
        if token in vocabulary
    ]
    return spec


def _bytes(token: str) -> bytes:
    special = token in (UNKNOWN, END, PAD) or (token.startswith(">>") and token.endswith("<<"))
    return b"" if special else token.replace(SPACE, " ").encode("utf-8", "replace")


def language_tokens(tokens: Sequence[str]) -> list[str]:
    """Tokens that choose the language of the output: >>deu<<."""
    return [token for token in tokens if token.startswith(">>") and token.endswith("<<")]
