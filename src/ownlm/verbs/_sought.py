"""The documents that `runs --containing` looks for, and where a corpus has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.contains import Place, gives_texts_back, hashed_documents, lengths_of, tail_share
from ownlm.corpus.hashes import text_hash
from ownlm.corpus.shards import Corpus

HASH = re.compile("[0-9a-fA-F]{8,64}")
DOCUMENT_HASH = 32  # digits; a corpus hash has 64


@dataclass(frozen=True)
class Document:
    """A text of the given file. Its last line end does not count: a row of a table has none, a file has.

    Args:
        name: `file:line`.
        text: UTF-8, normalised.
    """

    name: str
    text: bytes

    @property
    def forms(self) -> tuple[bytes, bytes, bytes]:
        """As it is written, and without and with its last line end."""
        bare = self.text.removesuffix(b"\n")
        return self.text, bare, bare + b"\n"


@dataclass
class Hit:
    """A sought document as a corpus has it.

    Args:
        document: its name.
        hash: of its text, hexadecimal.
        places: of all its copies in the shards.
        dropped: why `prepare` left it out, when it did.
    """

    document: str
    hash: str
    places: list[Place] = field(default_factory=list)
    dropped: str = ""


class Sought:
    """A text file (or table, or folder of them), or the first digits of a hash.

    Raises:
        UsageError: neither a path nor a hash.
    """

    def __init__(self, word: str) -> None:
        self.word, self.path = word, Path(word)
        self.kind: Literal["file", "hash"] = "file" if self.path.exists() else "hash"
        self._read: dict[tuple[str, str, bool], list[Document]] = {}
        if self.kind == "hash" and not HASH.fullmatch(word):
            raise UsageError(
                "no such file, and not a hash (8 to 64 hexadecimal digits).",
                where="--containing " + word,
                do="ownlm runs --containing FILE",
            )

    @property
    def prefix(self) -> str:
        """The digits of the hash."""
        return self.word.lower()

    def documents(self, settings: dict[str, Any]) -> list[Document]:
        """The documents of the file, read and normalised as `prepare` does it with these settings."""
        repair = settings.get("fix_mojibake") is True
        key = (str(settings.get("column", "text")), str(settings.get("documents", "file")), repair)
        if key not in self._read:
            self._read[key] = list(_read(self.word, *key))
        return self._read[key]

    def hits(self, corpus: Corpus) -> list[Hit]:
        """The sought documents, each with where the corpus has it; of a hash those that it fits."""
        if self.kind == "hash":
            return self._hits_of_hash(corpus)
        documents, tail = self.documents(corpus.manifest["settings"]), tail_share(corpus)
        forms: dict[bytes, set[str]] = {}  # a file may hold a text several times
        lengths: set[int] = set()
        for document in documents:
            for form in document.forms:
                forms.setdefault(text_hash(form), set()).add(document.name)
                lengths |= lengths_of(form, tail)
        hits = {document.name: Hit(document.name, text_hash(document.text).hex()) for document in documents}
        for digest, place in hashed_documents(corpus, lengths):
            for name in forms.get(digest, ()):
                hits[name].hash = digest.hex()
                hits[name].places.append(place)
        _note_dropped(corpus, self.path, [hit for hit in hits.values() if not hit.places])
        return list(hits.values())

    def _hits_of_hash(self, corpus: Corpus) -> list[Hit]:
        hits: dict[str, Hit] = {}
        if len(self.prefix) > DOCUMENT_HASH:
            return []
        for digest, place in hashed_documents(corpus):
            name = digest.hex()
            if name.startswith(self.prefix):
                hits.setdefault(name, Hit(_where(corpus, place), name)).places.append(place)
        return list(hits.values())

    def refuse_empty(self) -> None:
        """Refuse a file in which no text was found, however it was read.

        Raises:
            Refused: with what it may be.
        """
        if self.kind == "file" and not any(self._read.values()) and not self.documents({}):
            what = "holds no text that could be read."
            raise Refused(what, where=self.word, do="a text file, or a table with the column of the corpus")

    def cannot_tell(self, corpus: Corpus) -> str:
        """Why a document that was not found may be in this corpus after all; "" when it is not."""
        settings = corpus.manifest["settings"]
        if self.kind == "file" and not self.documents(settings):
            return f'no text could be read from {self.word} with its column "{settings["column"]}"'
        if not gives_texts_back(corpus):
            return "its tokenizer does not give texts back as they were, so they cannot be compared"
        return ""


def _read(word: str, column: str, documents: Any, fix_mojibake: bool) -> Iterator[Document]:
    from ownlm.corpus.discover import discover
    from ownlm.corpus.documents import Dropped
    from ownlm.corpus.normalise import normalise
    from ownlm.corpus.readers.settings import ReadSettings
    from ownlm.corpus.readers.tasks import missing_column, read_file

    names: dict[str, int] = {}
    for file in discover([word]).files:
        settings = ReadSettings(column, documents)
        if missing_column(file, settings) is not None:
            settings = ReadSettings(documents=documents)
        for item in read_file(file, settings):
            if isinstance(item, Dropped):
                continue
            text = normalise(item.text, fix_mojibake=fix_mojibake)[0]
            if text and not text.isspace():
                again = names[item.where] = names.get(item.where, 0) + 1
                name = item.where if again == 1 else f"{item.where} ({again})"  # several on one line
                yield Document(name, text.encode("utf-8"))


def _where(corpus: Corpus, place: Place) -> str:
    if place.train is not None:
        return corpus.split("train").where(place.train)
    assert place.validation is not None
    return corpus.split("validation").where(place.validation)


def _note_dropped(corpus: Corpus, path: Path, hits: Iterable[Hit]) -> None:
    """Why `prepare` dropped those of these documents whose file, by name and size, it has read."""
    wanted = {hit.document.partition(" (")[0]: hit for hit in hits}
    if not wanted:
        return
    ours = {name.rpartition(":")[0] for name in wanted}
    theirs: dict[str, str] = {}
    for source in _lines(corpus.path / "sources.jsonl"):
        named = str(source.get("path"))
        theirs.update((named, mine) for mine in ours if _same_file(named, source.get("bytes"), Path(mine)))
    for line in _lines(corpus.path / "dropped.jsonl") if theirs else ():
        named, _, number = str(line.get("where")).rpartition(":")
        hit = wanted.get(f"{theirs[named]}:{number}") if named in theirs else None
        if hit is not None:
            kept = f", {line['kept']} was kept" if line.get("kept") else ""
            hit.dropped = f"{line.get('reason')}{kept}"


def _same_file(named: str, size: object, mine: Path) -> bool:
    """Whether a source, as it was called when the corpus was made, is this file: the same size and end of its path."""
    parts = [part for part in Path(named).parts if part not in ("..", ".", "/")]
    try:
        return mine.resolve().parts[-len(parts) :] == tuple(parts) and mine.stat().st_size == size
    except OSError:
        return False


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            content = json.loads(line)
            if isinstance(content, dict):
                yield content
