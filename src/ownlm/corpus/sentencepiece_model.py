"""Sentencepiece's `tokenizer.model` read without its library.

The file is a protobuf message (google/sentencepiece, src/sentencepiece_model.proto); the field numbers below are
those of that file. What a `tokenizer.json` cannot do as sentencepiece does it is refused by name.
"""

from __future__ import annotations

import enum
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from ownlm.console.errors import Refused
from ownlm.corpus.protobuf import fields, message
from ownlm.corpus.vocabulary import MAX_VOCABULARY

SPACE = "\u2581"  # ▁ stands for a space
MAX_FILE_BYTES = 200_000_000  # the largest published file is about 15 MB
MAX_PIECE = 1_024  # characters; the trainer's default limit is 16
MAX_SYMBOLS = 5_000  # they become one regular expression
_UNIGRAM, _BPE = 1, 2
_KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


class PieceKind(enum.IntEnum):
    """What a piece is for; only NORMAL, USER_DEFINED and UNUSED ones are looked for in a text."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """One token; its id is its place in the list."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True)
class SentencepieceModel:
    """What a `tokenizer.model` says.

    Args:
        pieces: index = id.
        unigram: Unigram (Kudo 2018); else BPE whose merges follow from the scores.
        byte_fallback: characters without a piece become their UTF-8 bytes.
        unk_id, bos_id, eos_id: -1: there is none.
        charsmap: the normaliser's table of replacements; empty: the text stays as it is.
        dummy_prefix: a space is put before a text.
        collapse_spaces: spaces at both ends are removed, runs of them become one.
        where: what error messages name.
    """

    pieces: list[Piece]
    unigram: bool = False
    byte_fallback: bool = True
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    charsmap: bytes = b""
    dummy_prefix: bool = True
    collapse_spaces: bool = False
    where: object = "tokenizer.model"

    def piece(self, index: int) -> str | None:
        """The text of a control piece or of the unknown one; None where the model has none of that id."""
        if not 0 <= index < len(self.pieces):
            return None
        piece = self.pieces[index]
        return piece.text if piece.kind in (PieceKind.CONTROL, PieceKind.UNKNOWN) else None


# ---- reading


def read_model(file: Path) -> SentencepieceModel:
    """The model in a file.

    Raises:
        Refused: damaged, cut off, not one of sentencepiece, or one that cannot be followed exactly.
    """
    if file.stat().st_size > MAX_FILE_BYTES:
        raise Refused(f"larger than {MAX_FILE_BYTES // 10**6} MB: not a tokenizer.model.", where=file)
    data = file.read_bytes()
    pieces: list[Piece] = []
    found: set[int] = set()
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for number, value in fields(data):
            found.add(number)
            if number == 1:
                pieces.append(_piece(value, len(pieces)))
                if len(pieces) > MAX_VOCABULARY:
                    raise ValueError(f"more than {MAX_VOCABULARY:,} pieces")
            elif number == 2:
                trainer.update(fields(message(value)))
            elif number == 3:
                normalizer.update(fields(message(value)))
            elif number == 5 and dict(fields(message(value))).get(2):
                _unsupported(file, "a denormalizer")
        if not found >= {1, 2, 3}:  # sentencepiece writes them all, in this order
            raise ValueError("the pieces, the trainer's or the normaliser's settings are missing")
    except ValueError as error:
        raise Refused(
            f"not a sentencepiece model: {error}.",
            where=file,
            why="The file is cut off or damaged, or of another program.",
        ) from None
    model = _model(pieces, trainer, normalizer, file)
    check(model)
    return model


def _model(
    pieces: list[Piece], trainer: dict[int, int | bytes], normalizer: dict[int, int | bytes], file: Path
) -> SentencepieceModel:
    def number(section: dict[int, int | bytes], key: int, default: int) -> int:
        value = section.get(key, default)
        if not isinstance(value, int):
            raise Refused(f"not a sentencepiece model: field {key} is no number.", where=file)
        return value - 2**64 if value >= 2**63 else value

    kind = number(trainer, 3, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        _unsupported(file, f"the model type {_KINDS.get(kind, kind)}")
    if number(trainer, 24, 0):
        _unsupported(file, "treat_whitespace_as_suffix")
    if not number(normalizer, 5, 1):
        _unsupported(file, "escape_whitespaces = false")
    if trainer.get(53):
        _unsupported(file, "a pretokenization_delimiter")
    charsmap = normalizer.get(2, b"")
    name = normalizer.get(1, b"")
    if not charsmap and name not in (b"", b"identity"):
        # The table is what normalises; a name without one says that it got lost.
        _unsupported(file, f"the normaliser {name!r} without its table")
    return SentencepieceModel(
        pieces,
        unigram=kind == _UNIGRAM,
        byte_fallback=bool(number(trainer, 35, 0)),
        unk_id=number(trainer, 40, 0),
        bos_id=number(trainer, 41, 1),
        eos_id=number(trainer, 42, 2),
        charsmap=message(charsmap),
        dummy_prefix=bool(number(normalizer, 3, 1)),
        collapse_spaces=bool(number(normalizer, 4, 1)),
        where=file,
    )


def _unsupported(where: object, what: str) -> NoReturn:
    raise Refused(f"uses {what}, which is not supported.", where=where, why="The ids would be others.")


def _piece(value: int | bytes, index: int) -> Piece:
    found = dict(fields(message(value)))
    score, kind = found.get(2, b"\0\0\0\0"), found.get(3, 1)
    if not isinstance(score, bytes) or len(score) != 4 or kind not in set(PieceKind):
        raise ValueError(f"piece {index:,} has no score or no known type")
    try:
        text = message(found.get(1, b"")).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"piece {index:,} is not UTF-8") from None
    return Piece(text, struct.unpack("<f", score)[0], PieceKind(int(kind)))


# ---- checking


def check(model: SentencepieceModel) -> None:
    """Refuse pieces that sentencepiece would not load, or that a `tokenizer.json` cannot follow."""
    where, seen = model.where, dict[str, int]()
    for index, piece in enumerate(model.pieces):
        if not piece.text:
            raise Refused(f"piece {index:,} is empty.", where=where)
        if len(piece.text) > MAX_PIECE:
            raise Refused(f"piece {index:,} has {len(piece.text):,} characters.", where=where)
        if seen.setdefault(piece.text, index) != index:
            raise Refused(
                f"the pieces {seen[piece.text]:,} and {index:,} are both {piece.text!r}.",
                where=where,
                why="A text would have two ids.",
            )
        if not math.isfinite(piece.score):
            raise Refused(f"the score of piece {index:,} is {piece.score}.", where=where)
        if piece.kind is PieceKind.UNUSED:
            _unsupported(where, f"the unused piece {piece.text!r}")
    unknown = [i for i, piece in enumerate(model.pieces) if piece.kind is PieceKind.UNKNOWN]
    if unknown != [model.unk_id]:
        raise Refused(
            f"one unknown piece with the id {model.unk_id} is expected, there are {unknown[:5]}.", where=where
        )
    if model.byte_fallback:
        missing = {f"<0x{byte:02X}>" for byte in range(256)} - seen.keys()
        if missing:
            raise Refused(f"uses byte_fallback, and has no piece {min(missing)}.", where=where)
    _check_symbols(model)
    if model.charsmap and not _charsmap_holds_together(model.charsmap):
        raise Refused("the normaliser's table is damaged.", where=where)


def _check_symbols(model: SentencepieceModel) -> None:
    symbols = [piece.text for piece in model.pieces if piece.kind is PieceKind.USER_DEFINED]
    if len(symbols) > MAX_SYMBOLS and model.dummy_prefix:
        _unsupported(model.where, f"{len(symbols):,} user-defined pieces together with add_dummy_prefix")
    if symbols and model.charsmap:
        # They are exempt from the table there; here they are looked for in the text after it.
        _unsupported(model.where, f"the user-defined piece {symbols[0]!r} together with a normaliser")


def _charsmap_holds_together(charsmap: bytes) -> bool:
    """Whether no step through the table can leave it: the library that reads it does not check.

    The layout: uint32 bytes of a double-array trie, its uint32 units, then the replacements, each ended by a zero.
    """
    if len(charsmap) < 4:
        return False
    size = struct.unpack_from("<I", charsmap)[0]
    texts = charsmap[4 + size :]
    if not 0 < size <= len(charsmap) - 4 or size % 4 or not texts.endswith(b"\0"):
        return False
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        return False
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    leaves = (units >> 31).astype(bool)
    # https://github.com/s-yata/darts-clone: an inner unit's children lie at its place XOR its offset XOR the byte.
    children = (np.arange(len(units)) ^ ((units >> 10) << ((units & (1 << 9)) >> 6))) | 0xFF
    values = units[leaves] & 0x7FFFFFFF
    return bool((children[~leaves] < len(units)).all() and (values < len(texts)).all())
