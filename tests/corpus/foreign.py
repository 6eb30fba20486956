"""Small tokenizers of other programs, made anew for each test, and sentencepiece's rules written down plainly."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ownlm.corpus.sentencepiece import Piece, PieceKind

SENTENCES = (
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Всё смешалось в доме Облонских, сказал он.",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "吾輩は猫である。名前はまだ無い。",
    "나는 학교에 갑니다. 오늘은 날씨가 좋다.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता है।",
    "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng.",
    "Jeder Mensch ist für größere Übel geschaffen, naïve Köpfe auch.",
)
EDGES = (
    "",
    " ",
    "  ",
    " leading",
    "trailing  ",
    "a" + " " * 70 + "b" + "\n" * 40 + "\t" * 30 + "\r\n \n\t x",
    "    for i in range(10):\n        print(i)  # 1234567890",
    "<|im_start|>user\nHello<|im_end|>\n<|endoftext|>",
    "<s>[INST] no </s> [CLS] [SEP] [MASK]<unk><0x0A>",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ☺️",
    "e\u0301 o\u0308\u0323 Z\u0351\u036b\u0343 ni\u00f1o nin\u0303o \u1100\u1161\u11a8",
    "ﬁ ① ｱｲｳ \u00a0 \u3000 \u2028 \u200b \ufeff \x00 \x1f",
    b"caf\xe9 \xff\xfe \xe2\x82 end".decode("utf-8", "replace"),
    b"caf\xe9 \xff\xfe \xe2\x82 end".decode("utf-8", "surrogateescape"),
    "I'm you're WE'LL 3.14159 x=y+z; https://example.org/?q=1&r=2",
)
TEXTS = (*SENTENCES, *EDGES)

IDENTITY = {"add_dummy_prefix": 1, "remove_extra_whitespaces": 0}


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


# ---- GPT-2 and BERT, trained by `tokenizers`


def write_gpt2(folder: Path, names: tuple[str, str] = ("vocab.json", "merges.txt")) -> None:
    """A byte-level BPE vocabulary of 600 tokens, <|endoftext|> the last one."""
    import tokenizers

    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(SENTENCES, vocab_size=600, min_frequency=1, show_progress=False)
    trained.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    write_json(folder / "vocab.json", vocabulary | {"<|endoftext|>": len(vocabulary)})
    for old, new in zip(("vocab.json", "merges.txt"), names):
        (folder / old).rename(folder / new)
    write_json(folder / "config.json", {"model_type": "gpt2"})


def write_bert(folder: Path, **config: Any) -> None:
    """A WordPiece vocabulary of 300 tokens."""
    import tokenizers

    trained = tokenizers.BertWordPieceTokenizer(lowercase=config.get("do_lower_case", True))
    trained.train_from_iterator(SENTENCES, vocab_size=300, min_frequency=1, show_progress=False)
    trained.save_model(str(folder))
    write_json(folder / "config.json", {"model_type": "bert"})
    if config:
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **config})


# ---- sentencepiece


def pieces(*, byte_fallback: bool = True, symbols: Sequence[str] = ()) -> list[Piece]:
    """<unk>, <s>, </s>, bytes, then words' beginnings and characters with falling scores, runs of spaces last."""
    found = [
        Piece("<unk>", 0.0, PieceKind.UNKNOWN),
        Piece("<s>", 0.0, PieceKind.CONTROL),
        Piece("</s>", 0.0, PieceKind.CONTROL),
        *(Piece(symbol, 0.0, PieceKind.USER_DEFINED) for symbol in symbols),
    ]
    if byte_fallback:
        found += [Piece(f"<0x{byte:02X}>", 0.0, PieceKind.BYTE) for byte in range(256)]
    words = dict.fromkeys("▁" + word for text in SENTENCES[:3] for word in text.split())
    merged = dict.fromkeys(word[:length] for length in range(2, 7) for word in words if len(word) >= length)
    merged |= dict.fromkeys(word[at : at + 2] for word in words for at in range(1, len(word) - 1))
    characters = dict.fromkeys("▁" + "".join(SENTENCES[:3]).replace(" ", "") + "<>s/0")
    for rank, text in enumerate([*merged, *characters]):
        found.append(Piece(text, -1.0 - rank, PieceKind.NORMAL))
    # As in Llama 2: their ids are small, their scores the worst. Merges go by the score.
    last = [Piece("▁" * length, -1e6 - length, PieceKind.NORMAL) for length in (2, 4)]
    at = 3 + len(symbols) + 256 * byte_fallback
    return found[:at] + last + found[at:]


def model_bytes(
    all_pieces: Iterable[Piece],
    trainer: dict[str, Any] | None = None,
    normalizer: dict[str, Any] | None = None,
) -> bytes:
    """A `tokenizer.model` as sentencepiece writes it; the fields by their names."""
    numbers = {
        "model_type": 3,
        "treat_whitespace_as_suffix": 24,
        "byte_fallback": 35,
        "unk_id": 40,
        "bos_id": 41,
    }
    spec = {
        "name": 1,
        "precompiled_charsmap": 2,
        "add_dummy_prefix": 3,
        "remove_extra_whitespaces": 4,
        "escape_whitespaces": 5,
    }
    out = b""
    for piece in all_pieces:
        body = field(1, piece.text.encode()) + field(2, piece.score) + field(3, int(piece.kind))
        out += field(1, body)
    given = {"model_type": 2, "byte_fallback": 1} | (trainer or {})
    out += field(2, b"".join(field(numbers[name], value) for name, value in given.items()))
    given = IDENTITY | (normalizer or {})
    return out + field(3, b"".join(field(spec[name], value) for name, value in given.items()))


def field(number: int, value: bytes | int | float) -> bytes:
    """One protobuf field: bytes, a number, or a 32-bit float."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def plain_bpe(all_pieces: list[Piece], text: str, *, prefix: bool = True) -> list[int]:
    """Sentencepiece's BPE in the plainest way: join the best-scored neighbours, the leftmost of equals first.

    Characters without a piece become bytes, or one unknown piece for a run of them.
    """
    ids = {piece.text: index for index, piece in enumerate(all_pieces)}
    usable = {piece.text: piece.score for piece in all_pieces if piece.kind is PieceKind.NORMAL}
    parts = list((("▁" if prefix and text else "") + text).replace(" ", "▁"))
    while True:
        pairs = [(-usable[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in usable]
        if not pairs:
            break
        at = min(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    out: list[int] = []
    for part in parts:
        if part in usable:
            out.append(ids[part])
        elif "<0x00>" in ids:
            out += [ids[f"<0x{byte:02X}>"] for byte in part.encode()]
        elif not out or out[-1] != 0:
            out.append(0)
    return out
