"""Sentencepiece models: the bytes, what is refused, and the ids beside its rules written down plainly."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ownlm.console.errors import Refused
from ownlm.corpus.sentencepiece import Piece, PieceKind, read_model, tokenizer_files
from ownlm.corpus.tokenizer import Tokenizer
from tests.corpus.foreign import SENTENCES, field, model_bytes, pieces, plain_bpe, varint


def refused(folder: Path, *words: str) -> None:
    """Loading the folder is refused, and the message has these words."""
    with pytest.raises(Refused) as caught:
        Tokenizer.load(folder)
    for word in words:
        assert word in str(caught.value)


def test_the_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    made = pieces(symbols=("[[x]]",))
    file.write_bytes(model_bytes(made))
    model = read_model(file)
    assert model.pieces == [Piece(t, struct.unpack("<f", struct.pack("<f", s))[0], k) for t, s, k in made]
    assert (model.unigram, model.byte_fallback, model.dummy_prefix, model.collapse_spaces) == (
        False,
        True,
        True,
        False,
    )


def test_a_model_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    whole = model_bytes(pieces())
    for length in (*range(60), *range(60, len(whole) - 60, 97), *range(len(whole) - 60, len(whole))):
        file.write_bytes(whole[:length])
        refused(tmp_path, "tokenizer.model", "cut off or damaged")
    file.write_bytes(whole)
    assert Tokenizer.load(tmp_path).vocab_size == len(pieces())


def test_absurd_sizes_allocate_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    piece = field(1, b"\n" + varint(2**40) + b"abc")
    for content in (
        b"\n" + varint(2**62),
        b"\n" + varint(2**31) + b"abc",
        piece,
        b"\xff" * 11,
        b"\x0b",
        b"\x0a",
    ):
        file.write_bytes(content)
        tracemalloc.start()
        refused(tmp_path, "tokenizer.model", "cut off or damaged")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000


def normal(text: str, score: float = -1.0) -> Piece:
    return Piece(text, score, PieceKind.NORMAL)


@pytest.mark.parametrize(
    ("more", "trainer", "normalizer", "word"),
    [
        ([], {"model_type": 3}, {}, "word"),
        ([], {"model_type": 4}, {}, "char"),
        ([], {"model_type": 9}, {}, "9"),
        ([], {"treat_whitespace_as_suffix": 1}, {}, "treat_whitespace_as_suffix"),
        ([], {}, {"escape_whitespaces": 0}, "escape_whitespaces"),
        ([], {}, {"name": b"nmt_nfkc"}, "nmt_nfkc"),
        ([], {}, {"precompiled_charsmap": b"\x08\0\0\0garbage!\0"}, "table is damaged"),
        ([], {}, {"precompiled_charsmap": struct.pack("<3I", 8, 5 << 10, 0) + b"\0"}, "table is damaged"),
        ([], {"unk_id": 1}, {}, "unknown piece"),
        ([normal("▁")], {}, {}, "are both '▁'"),
        ([normal("")], {}, {}, "is empty"),
        ([normal("x" * 5000)], {}, {}, "5,000 characters"),
        ([normal("ab", float("nan"))], {}, {}, "nan"),
        ([normal("ab", float("inf"))], {}, {}, "inf"),
        ([Piece("ab", 0.0, PieceKind.UNUSED)], {}, {}, "unused piece 'ab'"),
        ([Piece("<unk2>", 0.0, PieceKind.UNKNOWN)], {}, {}, "unknown piece"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    more: list[Piece], trainer: dict[str, Any], normalizer: dict[str, Any], word: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_bytes([*pieces(), *more], trainer, normalizer))
    refused(tmp_path, "tokenizer.model", word)


def test_bytes_that_are_no_text_and_missing_byte_pieces_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    whole = model_bytes(pieces())
    file.write_bytes(whole + field(1, field(1, b"\xff\xfe") + field(2, 0.0)))
    refused(tmp_path, "is not UTF-8")
    file.write_bytes(whole + field(1, field(1, b"ab") + field(3, 7)))
    refused(tmp_path, "no known type")
    file.write_bytes(model_bytes([piece for piece in pieces() if piece.text != "<0x41>"]))
    refused(tmp_path, "<0x41>")
    file.write_bytes(b"IQ== 0\nIg== 1\nIw== 2\n")  # another program's format under the same name
    refused(tmp_path, "tokenizer.model")


def test_spaces_at_the_ends_and_in_runs_are_removed_where_the_model_says_so(tmp_path: Path) -> None:
    made = pieces()
    (tmp_path / "tokenizer.model").write_bytes(model_bytes(made, {}, {"remove_extra_whitespaces": 1}))
    found = Tokenizer.load(tmp_path)
    for text in ("   The   quick fox  ", "The quick fox"):
        assert found.encode(text).tolist() == plain_bpe(made, "The quick fox")
    assert found.encode("a\n b").tolist() == plain_bpe(made, "a\n b")


def test_user_defined_pieces_are_cut_out_of_a_text(tmp_path: Path) -> None:
    made = pieces(symbols=("[[x]]", "a|b"))
    (tmp_path / "tokenizer.model").write_bytes(model_bytes(made))
    found = Tokenizer.load(tmp_path)
    expected = [*plain_bpe(made, "The "), 3, *plain_bpe(made, "fox", prefix=False)]
    assert found.encode("The [[x]]fox").tolist() == expected
    start = made.index(next(piece for piece in made if piece.text == "▁"))
    assert found.encode("[[x]]fox").tolist() == [start, 3, *plain_bpe(made, "fox", prefix=False)]
    assert found.encode("xa|b").tolist() == [*plain_bpe(made, "x"), 4]
    assert found.decode(found.encode("The [[x]]fox")) == "The [[x]]fox"


def test_files_of_a_llama_like_tokenizer(tmp_path: Path) -> None:
    made = pieces()
    tokenizer_files(made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    found = Tokenizer.load(tmp_path)
    for text in SENTENCES:
        assert found.encode(text).tolist() == plain_bpe(made, text)
        assert found.decode(found.encode(text)) == text
    assert (found.prefix_ids, found.start_id, found.eos_id) == ([1], 1, 2)
    with pytest.raises(Refused, match="unknown piece with the id 0"):
        tokenizer_files(made[::-1], tmp_path)
    with pytest.raises(Refused, match="first three pieces"):
        tokenizer_files([made[0], *made[3:]], tmp_path)
