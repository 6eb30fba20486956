"""What a context holds: its files, the documents in them, and their passages with the place each came from."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus import kinds
from ownlm.corpus.discover import Found, NotRead, SourceFile, discover, valid_name
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.normalise import normalise
from ownlm.corpus.readers.settings import ReadSettings
from ownlm.corpus.readers.tasks import missing_column, read_file
from ownlm.corpus.shards import MANIFEST, SPLITS, Corpus
from ownlm.search.passages import passages
from ownlm.search.terms import terms

LINE, ROW, PAGE, SLIDE, FILE = range(5)  # what the number of a place counts; FILE: there is none
_SLIDE = re.compile(r"<!-- Slide number: (\d+) -->")


@dataclass(frozen=True, slots=True)
class Cut:
    """A passage as it goes into the index.

    Attributes:
        text: the passage.
        name: its file as the context names it, below the context; "" when the context is that file.
        unit, number: LINE, ROW (its line), PAGE, SLIDE or FILE, counted from 1; 0 for FILE.
        heading: see `Passage`.
        document: number of the document in its source, from 0.
        terms: of the text, its headings and the name of its file.
    """

    text: str
    name: str
    unit: int
    number: int
    heading: str
    document: int
    terms: list[str]


@dataclass(slots=True)
class Read:
    """What reading one source gave.

    Attributes:
        cuts: its passages.
        documents: how many documents they are of.
        dropped: what was not read, counted by reason.
    """

    cuts: list[Cut] = field(default_factory=list)
    documents: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Context:
    """A file, a folder or a corpus folder whose content is searched.

    Attributes:
        path: as it was typed.
        files: what is read; of a corpus folder its manifest alone, whose hash covers the rest.
        not_read: the others, by reason.
        is_corpus: it is a corpus folder.
    """

    path: Path
    files: list[SourceFile]
    not_read: list[NotRead]
    is_corpus: bool

    def name(self, file: SourceFile) -> str:
        """A file's path below the context; "" for the context itself."""
        below = os.path.relpath(file.path, self.path)
        return "" if below == os.curdir else valid_name(below)

    def read(self, file: SourceFile) -> Read:
        """Read one of the files."""
        if self.is_corpus:
            return _cut(_of_corpus(Corpus.open(self.path)))
        refusal = missing_column(file, ReadSettings())
        if refusal is not None and file.explicit:
            do = f"{refusal.do.removesuffix(' …')} -o corpus, then --context corpus" if refusal.do else ""
            raise UsageError(f"{refusal.reason}.", where=file.name, why=f"{refusal.detail}.", do=do)
        return _cut(_of_file(file, self.name(file)))


def find_context(path: str | os.PathLike[str]) -> Context:
    """What a context argument means.

    Raises:
        UsageError: there is no such file or folder, or a file is not readable as text.
        Refused: there is nothing in it that can be read.
    """
    where = Path(path)
    if str(path) == "-":
        raise UsageError("a file or a folder is searched; standard input holds questions.", where="--context")
    if (where / MANIFEST).is_file():
        Corpus.open(where)  # one that is not whole is refused here
        manifest = where / MANIFEST
        return Context(where, [SourceFile(str(manifest), manifest.stat().st_size, "json")], [], True)
    found = discover([where])
    if not found.files:
        raise Refused(_nothing(found), where=where, do="a folder with texts (txt, md, html, jsonl, csv, …)")
    if any(file.stream for file in found.files):
        raise UsageError("a pipe; a file or a folder is searched.", where=where, do=f"cat {where} > text.txt")
    return Context(where, found.files, found.not_read, False)


def _nothing(found: Found) -> str:
    if not found.not_read:
        return "an empty folder: there is nothing to search."
    reasons = "; ".join(
        f"{group.files:,} {group.reason}"
        + (f" ({kinds.with_file(group.do, group.examples[0])})" if group.do else "")
        for group in found.not_read
    )
    return f"no file here can be read: {reasons}."


def _of_file(file: SourceFile, name: str) -> Iterator[tuple[str, Document] | Dropped]:
    for item in read_file(file, ReadSettings()):
        yield item if isinstance(item, Dropped) else (name, item)


def _of_corpus(corpus: Corpus) -> Iterator[tuple[str, Document] | Dropped]:
    for split in (corpus.split(name) for name in SPLITS):
        for number in range(split.num_documents):
            name, _, line = split.where(number).rpartition(":")
            kind = kinds.KIND_OF.get(kinds.suffix_of(name, compressed=True), "text")
            yield name, Document(split.document_text(number), name, int(line), None, kind, "utf-8")


def _cut(items: Iterable[tuple[str, Document] | Dropped]) -> Read:
    found = Read()
    for item in items:
        if isinstance(item, Dropped):
            found.dropped[item.reason] += 1
            continue
        name, document = item
        before = len(found.cuts)
        for unit, number, text in _parts(document):
            found.cuts += _cuts(text, name, unit, number, document, found.documents)
        if len(found.cuts) == before:
            found.dropped["empty text"] += 1
        else:
            found.documents += 1
    return found


def _parts(document: Document) -> Iterator[tuple[int, int, str]]:
    """(unit, number, text) of what is cut by itself: the pages of a PDF, the slides of a talk, else the document."""
    if document.kind == "pdf" and "\f" in document.text:
        yield from ((PAGE, page, text) for page, text in enumerate(document.text.split("\f"), 1))
    elif document.kind == "pptx" and _SLIDE.search(document.text):
        _, *parts = _SLIDE.split(document.text)
        yield from ((SLIDE, int(slide), text) for slide, text in zip(parts[::2], parts[1::2]))
    elif document.kind in kinds.ROW_KINDS:
        yield ROW, document.line, document.text
    elif document.kind == "text":
        yield LINE, document.line, document.text
    else:
        yield FILE, 0, document.text


def _cuts(text: str, name: str, unit: int, number: int, document: Document, position: int) -> Iterator[Cut]:
    title = "" if unit == ROW else PurePosixPath(name or document.source).stem
    for passage in passages(normalise(text)[0]):
        about = f"{title}\n{passage.heading}\n{passage.text}"
        place = number + passage.line if unit == LINE else number
        yield Cut(passage.text, name, unit, place, passage.heading, position, terms(about))
