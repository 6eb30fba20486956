"""The index in memory and as one file: passages, their terms, BM25 over passages and over documents."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.search import bm25
from ownlm.search.bm25 import Bm25, Integers
from ownlm.search.reading import FILE, LINE, PAGE, ROW, Read
from ownlm.search.terms import is_unspaced

FORMAT = "ownlm index 1"  # another number when passages, terms or arrays are made in another way
# unit, number: see `Cut`; name, heading: positions in the source's lists; document: its number in the source.
PLACED = np.dtype(
    [("unit", "u1"), ("number", "<u4"), ("name", "<u4"), ("heading", "<u4"), ("document", "<u4")]
)
_MATRICES = ("passages", "documents")
_ARRAYS: dict[str, Any] = {"text": "u1", "text_starts": "<i8", "rows": PLACED, "ids": "<u4", "starts": "<i8"}
_MATRIX_ARRAYS = {"starts": "<i8", "texts": "<i4", "scores": "<f4"}


class Damaged(ValueError):
    """A file that is not an index that this version wrote."""


@dataclass(slots=True)
class Source:
    """A file that is in the index.

    Attributes:
        name: see `Cut`.
        size, modified, sha256: of the file: bytes, nanoseconds, hash of the content.
        documents, passages: how many came of it.
        dropped: see `Read`.
        names, headings: what its rows refer to.
    """

    name: str
    size: int
    modified: int
    sha256: str
    documents: int = 0
    passages: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Segment:
    """What the index holds of one source: UTF-8 texts [passages], `PLACED` [passages], ids of terms [passages]."""

    source: Source
    texts: list[bytes]
    rows: npt.NDArray[Any]
    ids: list[npt.NDArray[np.uint32]]


@dataclass(frozen=True)
class Index:
    """All passages of a context.

    Attributes:
        sources: in the order of their passages.
        text, text_starts: UTF-8 of all passages, uint8; passage p is `text_starts[p]:text_starts[p + 1]`.
        rows: `PLACED` [passages].
        vocabulary: the terms by id.
        ids, starts: ids of the terms of all passages, uint32; passage p is `starts[p]:starts[p + 1]`.
        passages, documents: BM25 over passages, and over whole documents.
    """

    sources: list[Source]
    text: npt.NDArray[np.uint8]
    text_starts: Integers
    rows: npt.NDArray[Any]
    vocabulary: list[str]
    ids: npt.NDArray[np.uint32]
    starts: Integers
    passages: Bm25
    documents: Bm25

    @cached_property
    def term_ids(self) -> dict[str, int]:
        """The id of each term."""
        return {term: number for number, term in enumerate(self.vocabulary)}

    @cached_property
    def unspaced(self) -> float:
        """The share of terms in scripts without spaces."""
        kinds = np.array([is_unspaced(term) for term in self.vocabulary], np.bool_)
        return float(kinds[self.ids].mean()) if len(self.ids) else 0.0

    @cached_property
    def first_passages(self) -> Integers:
        """The first passage of each source, and the number of passages at the end; int64 [sources + 1]."""
        return np.cumsum([0, *(source.passages for source in self.sources)])

    @cached_property
    def document_of(self) -> Integers:
        """The number of each passage's document over all sources, int64 [passages]."""
        return _document_numbers(self.sources, self.rows)

    def passage_text(self, passage: int) -> str:
        """The text of a passage."""
        data = self.text[self.text_starts[passage] : self.text_starts[passage + 1]]
        return data.tobytes().decode("utf-8", "replace")

    def passage_ids(self, passage: int) -> npt.NDArray[np.uint32]:
        """Ids of a passage's terms in order, those of its headings first."""
        return self.ids[self.starts[passage] : self.starts[passage + 1]]

    def source_of(self, passage: int) -> Source:
        """The source of a passage."""
        return self.sources[int(np.searchsorted(self.first_passages, passage, side="right")) - 1]

    def segments(self) -> list[Segment]:
        """The index taken apart by its sources; ids are those of `vocabulary`."""
        found = []
        for source, first in zip(self.sources, self.first_passages.tolist()):
            numbers = range(first, first + source.passages)
            texts = [bytes(self.text[self.text_starts[p] : self.text_starts[p + 1]]) for p in numbers]
            rows = self.rows[first : first + source.passages]
            found.append(Segment(source, texts, rows, [self.passage_ids(p) for p in numbers]))
        return found


def segment(source: Source, read: Read, term_ids: dict[str, int]) -> Segment:
    """What was read of a source as a part of an index.

    Args:
        source: its facts; counts, names and headings are filled in here.
        read: its passages.
        term_ids: ids of terms; new terms are added.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(cut.name for cut in read.cuts))}
    headings = {text: number for number, text in enumerate(dict.fromkeys(cut.heading for cut in read.cuts))}
    source.documents, source.passages, source.dropped = read.documents, len(read.cuts), dict(read.dropped)
    source.names, source.headings = list(names), list(headings)
    rows = [(c.unit, c.number, names[c.name], headings[c.heading], c.document) for c in read.cuts]
    ids = [
        np.array([term_ids.setdefault(term, len(term_ids)) for term in cut.terms], np.uint32)
        for cut in read.cuts
    ]
    return Segment(source, [cut.text.encode() for cut in read.cuts], np.array(rows, PLACED), ids)


def assemble(segments: Sequence[Segment], terms: Sequence[str]) -> Index:
    """The index of some sources.

    Args:
        segments: in order; their ids are positions in `terms`.
        terms: terms that no passage holds are left out of the index.
    """
    texts = list(chain.from_iterable(part.texts for part in segments))
    each = list(chain.from_iterable(part.ids for part in segments))
    ids = np.concatenate(each).astype(np.uint32) if each else np.zeros(0, np.uint32)
    used, positions = np.unique(ids, return_inverse=True)
    ids = positions.astype(np.uint32)
    starts = np.cumsum([0, *map(len, each)])
    rows = np.concatenate([part.rows for part in segments]) if segments else np.zeros(0, PLACED)
    sources = [part.source for part in segments]
    documents = _document_numbers(sources, rows)
    # A document's passages stand together, so its terms are a range of all terms.
    document_starts = np.append(starts[:-1][np.unique(documents, return_index=True)[1]], starts[-1])
    return Index(
        sources,
        np.frombuffer(b"".join(texts), np.uint8),
        np.cumsum([0, *map(len, texts)]),
        rows,
        [terms[number] for number in used.tolist()],
        ids,
        starts,
        bm25.build(ids, starts, len(used)),
        bm25.build(ids, document_starts, len(used)),
    )


def _document_numbers(sources: Sequence[Source], rows: npt.NDArray[Any]) -> Integers:
    before = np.cumsum([0, *(source.documents for source in sources)])[:-1]
    return np.repeat(before, [source.passages for source in sources]) + rows["document"].astype(np.int64)


def save(index: Index, path: Path) -> None:
    """Write an index; whoever reads the path meanwhile gets the old one or the new one, whole.

    Raises:
        OSError: it cannot be written.
    """
    meta = {"format": FORMAT, "k1": bm25.K1, "b": bm25.B, "sources": [asdict(s) for s in index.sources]}
    arrays: dict[str, Any] = {name: getattr(index, name) for name in _ARRAYS}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    arrays["vocabulary"] = np.frombuffer("\n".join(index.vocabulary).encode(), np.uint8)
    for name in _MATRICES:
        arrays |= {f"{name}_{part}": getattr(getattr(index, name), part) for part in _MATRIX_ARRAYS}
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read(path: Path) -> Index:
    """Read an index that `save` wrote.

    Raises:
        FileNotFoundError: there is none. OSError: it cannot be read.
        Damaged: it is not whole, or another version wrote it.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # the file may have come with its folder: nothing may unfold
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise Damaged("compressed")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays["meta"].tobytes())
        if [meta["format"], meta["k1"], meta["b"]] != [FORMAT, bm25.K1, bm25.B]:
            raise Damaged("of another version")
        vocabulary = arrays["vocabulary"].tobytes().decode()
        text, text_starts, rows, ids, starts = (np.asarray(arrays[n], kind) for n, kind in _ARRAYS.items())
        sources = [Source(**source) for source in meta["sources"]]
        terms = vocabulary.split("\n") if vocabulary else []
        counts = (len(rows), sum(source.documents for source in sources))
        matrices = [_matrix(arrays, name, count) for name, count in zip(_MATRICES, counts)]
        index = Index(sources, text, text_starts, rows, terms, ids, starts, *matrices)
        _check(index)
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise Damaged(str(error)) from None
    return index


def _matrix(arrays: dict[str, Any], name: str, count: int) -> Bm25:
    starts, texts, scores = (
        np.asarray(arrays[f"{name}_{part}"], kind) for part, kind in _MATRIX_ARRAYS.items()
    )
    return Bm25(starts, texts, scores, count)


def _check(index: Index) -> None:
    """Refuse what points outside of what it points into."""
    rows, sources, terms = index.rows, index.sources, len(index.vocabulary)
    passages = [source.passages for source in sources]
    fits = [
        _divides(index.text_starts, len(rows), len(index.text)),
        _divides(index.starts, len(rows), len(index.ids)),
        min(passages, default=0) >= 0 and sum(passages) == len(rows),
        _below(index.ids, terms),
    ]
    for matrix in (index.passages, index.documents):
        fits += [
            _divides(matrix.starts, terms, len(matrix.texts)),
            len(matrix.texts) == len(matrix.scores),
            _below(matrix.texts, matrix.count),
        ]
    if all(fits):
        limits = {"document": "documents", "name": "names", "heading": "headings"}
        for column, limit in limits.items():
            counts = [getattr(source, limit) for source in sources]
            sizes = [count if isinstance(count, int) else len(count) for count in counts]
            fits.append(bool((rows[column] < np.repeat(sizes, passages)).all()))
    if not all(fits):
        raise Damaged("its parts do not fit together")


def _divides(starts: Integers, parts: int, whole: int) -> bool:
    fits = len(starts) == parts + 1 and starts[0] == 0 and starts[-1] == whole
    return bool(fits and (np.diff(starts) >= 0).all())


def _below(numbers: npt.NDArray[Any], limit: int) -> bool:
    return not len(numbers) or (int(numbers.min()) >= 0 and int(numbers.max()) < limit)


def place(unit: int, number: int, file: str) -> str:
    """How a place is cited: `file:line` (of a row too), `file, page 3`, `file, slide 3`, or the file alone."""
    if unit == FILE:
        return file
    if unit in (LINE, ROW):
        return f"{file}:{number}"
    return f"{file}, {'page' if unit == PAGE else 'slide'} {number}"
