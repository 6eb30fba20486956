"""Token shards on disk: one writer, and the corpus folder that every later stage reads.

A shard is a flat file of token ids (uint16 or uint32, little endian). Every document starts with
`<|endoftext|>`. Next to `train-00000.bin` stands `train-00000.index.npy`, one `INDEX_DTYPE` row a document.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ownlm.console.errors import Refused, UsageError

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer

FORMAT = "ownlm corpus 1"
MANIFEST = "corpus.json"
DAMAGED = "The corpus is damaged."
SPLITS = ("train", "validation")
SHARD_BYTES = 512 * 2**20  # large enough to be few, small enough to copy and to check one at a time

# start: offset in this shard of the document's <|endoftext|>; tokens: count with it; bytes: UTF-8 bytes of
# the normalised text; source: id in sources.jsonl; line: first line, 1-based; part: piece of a long file.
INDEX_DTYPE = np.dtype(
    [
        ("start", "<u8"),
        ("tokens", "<u4"),
        ("bytes", "<u8"),
        ("source", "<u4"),
        ("line", "<u4"),
        ("part", "<u4"),
    ]
)


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest dtype of a shard that holds every id."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class ShardWriter:
    """Writes one split as shards of at most `shard_bytes`; a document never crosses a shard's end.

    Each shard is written under a temporary name and renamed when complete.

    Args:
        folder: the corpus folder.
        split: "train" or "validation".
        dtype: of the ids, see `token_dtype`.
        shard_bytes: a new shard starts before this size is passed (one longer document makes a longer shard).
    """

    def __init__(
        self, folder: Path, split: str, dtype: np.dtype[Any], shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder, self.split, self.dtype = folder, split, np.dtype(dtype)
        self.limit = max(shard_bytes // self.dtype.itemsize, 1)
        self.shards: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._rows: list[np.ndarray] = []
        self._tokens = 0
        self._hash = hashlib.sha256()

    def append(self, ids: np.ndarray, index: np.ndarray) -> None:
        """Add whole documents.

        Args:
            ids: token ids [tokens], each document with its leading <|endoftext|>.
            index: `INDEX_DTYPE` rows [documents] that cover `ids` in order; `start` counts from 0 in `ids`.
        """
        ends = index["start"] + index["tokens"]
        done = 0
        while done < len(index):
            begin = int(index["start"][done])
            room = self.limit - self._tokens
            fits = int(np.searchsorted(ends, begin + room, side="right"))
            if fits <= done and self._tokens:
                self._finish_shard()
                continue
            fits = max(fits, done + 1)
            self._write(ids[begin : int(ends[fits - 1])], index[done:fits], begin)
            done = fits

    def _write(self, ids: np.ndarray, rows: np.ndarray, begin: int) -> None:
        if self._file is None:
            self._file = self._path(".bin.partial").open("wb")
            self._hash = hashlib.sha256()
        data = np.ascontiguousarray(ids, dtype=self.dtype)
        self._file.write(data.data)
        self._hash.update(data.data)
        rows = rows.astype(INDEX_DTYPE, copy=True)
        rows["start"] += np.uint64(self._tokens)
        rows["start"] -= np.uint64(begin)
        self._rows.append(rows)
        self._tokens += len(data)

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.split}-{len(self.shards):05d}{ending}"

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        rows = np.concatenate(self._rows)
        final = self._path(".bin")
        self._path(".bin.partial").replace(final)
        index = self._path(".index.npy.partial")
        with index.open("wb") as file:
            np.save(file, rows, allow_pickle=False)
        index.replace(self._path(".index.npy"))
        digest = self._hash.hexdigest()
        self.shards.append(
            {"file": final.name, "tokens": self._tokens, "documents": len(rows), "sha256": digest}
        )
        self._rows, self._tokens = [], 0

    def close(self) -> list[dict[str, Any]]:
        """Finish the last shard and return the manifest entries: file, tokens, documents, sha256."""
        self._finish_shard()
        return self.shards


class Split:
    """One side of a corpus, memory-mapped; offsets count over all its shards.

    Attributes:
        name: "train" or "validation".
        num_tokens, num_documents, num_bytes: totals (bytes of UTF-8 text).
    """

    def __init__(self, corpus: Corpus, name: str) -> None:
        self.corpus, self.name = corpus, name
        entry = corpus.manifest["splits"][name]
        self.num_tokens: int = entry["tokens"]
        self.num_documents: int = entry["documents"]
        self.num_bytes: int = entry["bytes"]
        self.dtype = np.dtype(corpus.manifest["dtype"]).newbyteorder("<")
        self._shards = entry["shards"]
        self._token_ends = np.cumsum([0] + [s["tokens"] for s in self._shards]).tolist()
        self._document_ends = np.cumsum([0] + [s["documents"] for s in self._shards]).tolist()
        self._maps: dict[int, np.ndarray] = {}
        for shard in self._shards:
            self._check(shard)

    def _path(self, shard: dict[str, Any]) -> Path:
        return self.corpus.path / Path(shard["file"]).name  # a manifest must not point elsewhere

    def _check(self, shard: dict[str, Any]) -> None:
        path = self._path(shard)
        size = path.stat().st_size if path.exists() else -1
        if size != shard["tokens"] * self.dtype.itemsize:
            expected = shard["tokens"] * self.dtype.itemsize
            found = "is missing" if size < 0 else f"has {size:,} bytes instead of {expected:,}"
            raise Refused(f"the shard {found}.", where=path, why=DAMAGED, do="ownlm prepare … --overwrite")

    def verify(self) -> None:
        """Read every shard once and compare its hash with the manifest's.

        Raises:
            Refused: a shard holds other tokens than `prepare` wrote.
        """
        for shard in self._shards:
            path = self._path(shard)
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                    why = f"Its hash is not that in {MANIFEST}. {DAMAGED}"
                    raise Refused(
                        "the shard was changed.", where=path, why=why, do="ownlm prepare … --overwrite"
                    )

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._maps:
            path = self._path(self._shards[number])
            self._maps[number] = np.memmap(path, dtype=self.dtype, mode="r")
        return self._maps[number]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Token ids [stop - start] in the shards' own dtype; a view of the file where possible."""
        start, stop = max(start, 0), min(stop, self.num_tokens)
        pieces = []
        while start < stop:
            number = bisect.bisect_right(self._token_ends, start) - 1
            first, end = self._token_ends[number], min(stop, self._token_ends[number + 1])
            pieces.append(self._shard(number)[start - first : end - first])
            start = end
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.zeros(0, self.dtype)

    def _index(self, number: int) -> np.ndarray:
        path = self._path(self._shards[number]).with_suffix(".index.npy")
        try:
            rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Refused(f"the document index cannot be read ({error}).", where=path, why=DAMAGED) from None
        if rows.dtype != INDEX_DTYPE or len(rows) != self._shards[number]["documents"]:
            raise Refused("the document index does not belong to this shard.", where=path, why=DAMAGED)
        return rows

    @cached_property
    def _indexes(self) -> list[np.ndarray]:
        return [self._index(number) for number in range(len(self._shards))]

    def _column(self, name: str) -> np.ndarray:
        if not self._indexes:
            return np.zeros(0, INDEX_DTYPE[name])
        return np.concatenate([rows[name] for rows in self._indexes])

    @cached_property
    def document_starts(self) -> np.ndarray:
        """Offset of every document's <|endoftext|> over the whole split, uint64 [documents]."""
        parts = [rows["start"] + np.uint64(end) for rows, end in zip(self._indexes, self._token_ends)]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint64)

    @cached_property
    def document_bytes(self) -> np.ndarray:
        """UTF-8 bytes of every document's normalised text, uint64 [documents]."""
        return self._column("bytes")

    def row(self, document: int) -> np.void:
        """The index row of one document (`INDEX_DTYPE`; `start` counts inside its shard)."""
        if not 0 <= document < self.num_documents:
            raise IndexError(f"document {document} of {self.num_documents}")
        number = bisect.bisect_right(self._document_ends, document) - 1
        found: np.void = self._indexes[number][document - self._document_ends[number]]
        return found

    def document(self, document: int) -> np.ndarray:
        """Token ids of one document, with its leading <|endoftext|>."""
        row = self.row(document)
        number = bisect.bisect_right(self._document_ends, document) - 1
        start = self._token_ends[number] + int(row["start"])
        return self.read(start, start + int(row["tokens"]))

    def document_text(self, document: int) -> str:
        """The normalised text of one document."""
        return self.corpus.tokenizer.decode(self.document(document)[1:])

    def where(self, document: int) -> str:
        """Where a document comes from: `file:line`."""
        row = self.row(document)
        return f"{self.corpus.source_paths[int(row['source'])]}:{int(row['line'])}"


class Corpus(os.PathLike[str]):
    """A corpus folder as `prepare` wrote it; usable wherever a path is."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self._splits: dict[str, Split] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Corpus:
        """Open a corpus folder.

        Raises:
            UsageError: there is nothing at this path, or something that is not a corpus.
            Refused: a corpus that is unfinished or of a later format.
        """
        folder = Path(path)
        file = folder / MANIFEST
        if not folder.exists():
            raise UsageError(
                "no such corpus folder.", where=folder, do=f"ownlm prepare YOUR_TEXTS -o {folder}"
            )
        if not file.is_file():
            if (folder / ".work").is_dir():
                again = "the same `ownlm prepare` command again: it goes on where it stopped"
                raise Refused("this corpus is not finished.", where=folder, do=again)
            what = "not a corpus folder (no corpus.json)."
            raise UsageError(what, where=folder, do=f"ownlm prepare {folder} -o corpus")
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            known = manifest["format"] == FORMAT
        except (ValueError, KeyError, TypeError):
            raise Refused("not the manifest of a corpus.", where=file) from None
        if not known:
            raise Refused(f'the format is "{manifest["format"]}", this version reads "{FORMAT}".', where=file)
        return cls(folder, manifest)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        train = self.manifest["splits"]["train"]
        return f"Corpus({str(self.path)!r}, {train['documents']:,} documents, {train['tokens']:,} tokens)"

    @property
    def hash(self) -> str:
        """SHA-256 over the tokenizer's hash and the shards' hashes."""
        return str(self.manifest["hash"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The corpus's tokenizer, loaded when first used."""
        from ownlm.corpus.tokenizer import Tokenizer

        return Tokenizer.load(self.path)

    def split(self, name: str) -> Split:
        """The "train" or "validation" side."""
        if name not in SPLITS:
            raise UsageError(f'a corpus has the splits "train" and "validation", not {name!r}.')
        if name not in self._splits:
            self._splits[name] = Split(self, name)
        return self._splits[name]

    def verify(self) -> None:
        """Read all shards once and compare their hashes with the manifest's.

        Raises:
            Refused: a shard holds other tokens than `prepare` wrote.
        """
        for name in SPLITS:
            self.split(name).verify()

    @cached_property
    def source_paths(self) -> list[str]:
        """Paths of the source files by id."""
        with (self.path / "sources.jsonl").open(encoding="utf-8") as file:
            return [json.loads(line)["path"] for line in file]
