"""The last pass over the text: pieces of staged parts become token ids, train and validation apart."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.corpus import workers
from ownlm.corpus.catalogue import BOTH, TRAIN, VALIDATION, Catalogue
from ownlm.corpus.encode import Encoder
from ownlm.corpus.parts import STAGED, ending_of, read_texts
from ownlm.corpus.shards import INDEX_DTYPE, SPLITS, token_dtype
from ownlm.corpus.split import tail_cut

PIECE_BYTES = (
    4 * 2**20
)  # text of one task: small enough to spread evenly, large enough to make starting it cheap


@dataclass(frozen=True)
class PieceTask:
    """Consecutive documents of one part, to be encoded.

    Attributes:
        path: the piece's path without its ending.
        text: the part's text file.
        documents: file of all `STAGED` rows.
        fates: file of all fates.
        begin, end: the documents.
        tokenizer: folder of the tokenizer.
        tail: share of a document that is for validation, where its fate is BOTH.
    """

    path: Path
    text: Path
    documents: Path
    fates: Path
    begin: int
    end: int
    tokenizer: Path
    tail: float


def plan(
    catalogue: Catalogue, fates: Path, folder: Path, tokenizer: Path, tail: float
) -> Iterator[PieceTask]:
    """The tasks that encode a corpus, in reading order; their bounds depend on the documents only."""
    for number, part in enumerate(catalogue.parts):
        first = int(catalogue.starts[number])
        sizes = np.cumsum(catalogue.rows["bytes"][first : first + part.count])
        begin = 0
        while begin < part.count:
            before = int(sizes[begin - 1]) if begin else 0
            end = max(int(np.searchsorted(sizes, before + PIECE_BYTES, side="right")), begin + 1)
            path = folder / f"{number:06d}-{begin:07d}"
            span = (first + begin, first + end)
            yield PieceTask(path, part.text_path, catalogue.path, fates, *span, tokenizer, tail)
            begin = end


def encode_piece(task: PieceTask) -> dict[str, Any]:
    """Encode a piece, unless it is already there; returns its counts."""
    finished = ending_of(task.path, ".json")
    if finished.exists():
        found: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        workers.advance(found["bytes"])
        return found
    span = slice(task.begin, task.end)
    rows = np.array(np.memmap(task.documents, STAGED, "r")[span])
    fate = np.array(np.memmap(task.fates, np.uint8, "r")[span])
    encoder = _encoder(task.tokenizer)
    encoder.fallbacks.clear()
    sides = _sides(rows, fate, read_texts(task.text, rows), task.tail)
    counts: dict[str, Any] = {"bytes": int(rows["bytes"].sum())}
    task.path.parent.mkdir(parents=True, exist_ok=True)
    for name, (texts, index) in sides.items():
        ids = _encode(encoder, texts, index)
        ids.tofile(ending_of(task.path, f".{name}.ids"))
        index.tofile(ending_of(task.path, f".{name}.index"))
        counts[name] = [len(index), len(ids), int(index["bytes"].sum())]
    counts["fallbacks"] = dict(sorted(encoder.fallbacks.items()))
    partial = ending_of(task.path, ".json.partial")
    partial.write_text(json.dumps(counts), encoding="utf-8")
    partial.replace(finished)
    workers.advance(counts["bytes"])
    return counts


@functools.lru_cache(maxsize=1)
def _encoder(tokenizer: Path) -> Encoder:
    return Encoder(tokenizer)


def _sides(
    rows: np.ndarray, fate: np.ndarray, texts: list[bytes], tail: float
) -> dict[str, tuple[list[bytes], np.ndarray]]:
    """Texts and index rows (without tokens) of each split."""
    if np.any(fate == BOTH):
        return _cut_sides(rows, fate, texts, tail)
    found = {}
    for name, code in (("train", TRAIN), ("validation", VALIDATION)):
        chosen = fate == code
        index = np.zeros(np.count_nonzero(chosen), INDEX_DTYPE)
        for column in ("bytes", "source", "line", "part"):
            index[column] = rows[column][chosen]
        found[name] = (list(itertools.compress(texts, chosen.tolist())), index)
    return found


def _cut_sides(
    rows: np.ndarray, fate: np.ndarray, texts: list[bytes], tail: float
) -> dict[str, tuple[list[bytes], np.ndarray]]:
    """The same where documents are cut in two."""
    entries: dict[str, tuple[list[bytes], list[tuple[int, ...]]]] = {name: ([], []) for name in SPLITS}

    def add(name: str, text: bytes, source: int, line: int, part: int) -> None:
        entries[name][0].append(text)
        entries[name][1].append((0, 0, len(text), source, line, part))

    places = zip(rows["source"].tolist(), rows["line"].tolist(), rows["part"].tolist())
    for code, text, place in zip(fate.tolist(), texts, places):
        if code == TRAIN:
            add("train", text, *place)
        elif code == VALIDATION:
            add("validation", text, *place)
        elif code == BOTH:
            cut = tail_cut(text, tail)
            add("train", text[:cut], *place)
            if cut < len(text):
                source, line, part = place
                add("validation", text[cut:], source, line + text.count(b"\n", 0, cut), part)
    return {name: (found, np.array(index, INDEX_DTYPE)) for name, (found, index) in entries.items()}


def _encode(encoder: Encoder, texts: list[bytes], index: np.ndarray) -> np.ndarray:
    """Ids of the texts, each after the end token; fills in `start` and `tokens` of the index rows."""
    # Cleaned texts hold no U+0000; decoding all at once is quicker than each.
    decoded = b"\0".join(texts).decode("utf-8").split("\0") if texts else []
    ids, lengths = encoder.encode_stream(decoded)
    index["tokens"] = lengths
    index["start"] = np.cumsum(lengths) - lengths
    return ids.astype(token_dtype(encoder.tokenizer.vocab_size))
