"""The first pass: a reading task becomes a staged part on disk: cleaned texts, their hashes and signatures.

A part is files that share a name: `.txt` (UTF-8 texts back to back), `.documents` (`STAGED` rows),
`.signatures` and `.signed` (MinHash rows, the document of each), `.dropped` (JSON lines), `.json` (counts).
The last one is written last, all under temporary names first: a part is there whole, or not at all. Its name
holds a fingerprint of the sources and settings, so that going on after a kill is: skip what is there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.corpus import workers
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.filters import judge, unfit
from ownlm.corpus.hashes import PERMUTATIONS, signatures, text_hash
from ownlm.corpus.normalise import normalise
from ownlm.corpus.readers import ReadTask, read_task

# offset, bytes: place in the .txt; high, low: halves of the text's hash; group: hash of its key, 0 for none;
# source: position in the list of source files; line, part: where it begins there.
STAGED = np.dtype(
    [
        ("offset", "<u8"),
        ("bytes", "<u8"),
        ("high", "<u8"),
        ("low", "<u8"),
        ("group", "<u8"),
        ("source", "<u4"),
        ("line", "<u4"),
        ("part", "<u4"),
    ]
)
BATCH_BYTES = 2**20  # texts whose signatures are computed together
ENDINGS = (".txt", ".documents", ".signatures", ".signed", ".dropped")


@dataclass(frozen=True)
class Cleaning:
    """What is done with every text.

    Attributes:
        filters: names of quality filters, in order.
        fix_mojibake: repair UTF-8 that was once read as another encoding.
        near_duplicates: compute signatures.
    """

    filters: tuple[str, ...] = ()
    fix_mojibake: bool = False
    near_duplicates: bool = True


@dataclass(frozen=True)
class StageTask:
    """A reading task and where its part goes.

    Attributes:
        read: what is read.
        source_ids: the number of each file, by name.
        path: the part's path without its ending.
        cleaning: what is done with every text.
    """

    read: ReadTask
    source_ids: dict[str, int]
    path: Path
    cleaning: Cleaning


@dataclass
class Flow:
    """Documents and bytes into and out of one step, and what was dropped, by reason."""

    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def passed(self, bytes_in: int, bytes_out: int) -> None:
        self.documents_in += 1
        self.documents_out += 1
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def drop(self, bytes_in: int, reason: str) -> None:
        self.documents_in += 1
        self.bytes_in += bytes_in
        self.dropped[reason] += 1

    def add(self, other: dict[str, Any]) -> None:
        """Add the counts of another part, as they stand in its JSON."""
        for name in ("documents_in", "documents_out", "bytes_in", "bytes_out"):
            setattr(self, name, getattr(self, name) + other[name])
        self.dropped.update(other["dropped"])
        self.changed.update(other["changed"])

    def as_dict(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {
            "documents_in": self.documents_in,
            "documents_out": self.documents_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "dropped": dict(sorted(self.dropped.items())),
            "changed": dict(sorted(self.changed.items())),
        }


def fingerprint(task: ReadTask, settings: str) -> str:
    """Names a part by what is in it: the settings, the task's bytes, or its files' names, sizes and times."""
    digest = hashlib.blake2b(settings.encode(), digest_size=8)
    for file in task.files:
        digest.update(f"\0{file.name}\0{file.kind}\0{file.explicit}".encode())
        if not file.stream:
            status = Path(file.path).stat()
            digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}".encode())
    if task.block is not None:
        digest.update(f"\0{task.block.line}\0{task.block.part}\0{task.encoding}\0".encode())
        digest.update(task.block.data)
    for item in task.items or ():
        digest.update(repr(item).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def stage(task: StageTask) -> dict[str, Any]:
    """Read, clean, hash and sign the documents of a task; returns (and leaves on disk) the part's counts."""
    done = Part.find(task.path)
    if done is not None:
        workers.advance(task.read.source_bytes)
        return done.meta
    with _Part(task) as part:
        for item in read_task(task.read):
            if isinstance(item, Dropped):
                part.not_read(item)
            else:
                part.document(item)
    workers.advance(task.read.source_bytes)
    return part.meta


class _Part:
    """A part being written."""

    def __init__(self, task: StageTask) -> None:
        self.task, self.cleaning = task, task.cleaning
        names = ["read", "normalise", *(f"filter:{name}" for name in task.cleaning.filters)]
        self.flows = {name: Flow() for name in names}
        self.sources: dict[int, list[Any]] = {}
        self.texts: list[bytes] = []
        self.rows: list[tuple[int, ...]] = []
        self.documents = self.offset = self.held = self.signed = 0
        self.replaced = 0
        self.refused: dict[str, list[Any]] = {}

    def __enter__(self) -> _Part:
        self.task.path.parent.mkdir(parents=True, exist_ok=True)
        self.files = {ending: self._temporary(ending).open("wb") for ending in ENDINGS}
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is None:
            self._flush()
        for file in self.files.values():
            file.close()
        if kind is not None:
            return
        self.meta = {
            "documents": self.documents,
            "bytes": self.offset,
            "signed": self.signed,
            "replaced": self.replaced,
            "source_bytes": self.task.read.source_bytes,
            "steps": {name: flow.as_dict() for name, flow in self.flows.items()},
            "not_read": [[reason, *counts] for reason, counts in self.refused.items()],
            "sources": [[source, *counts] for source, counts in self.sources.items()],
        }
        self._temporary(".json").write_text(json.dumps(self.meta), encoding="utf-8")
        for ending in (*ENDINGS, ".json"):
            self._temporary(ending).replace(ending_of(self.task.path, ending))

    def _temporary(self, ending: str) -> Path:
        return ending_of(self.task.path, f"{ending}.partial")

    def drop(self, where: str, reason: str, detail: str = "") -> None:
        reason = f"{reason}: {detail}" if detail else reason
        line = json.dumps({"where": where, "reason": reason}, ensure_ascii=False) + "\n"
        self.files[".dropped"].write(line.encode("utf-8", "backslashreplace"))

    def not_read(self, item: Dropped) -> None:
        self.flows["read"].drop(0, item.reason)
        self.drop(item.where, item.reason, item.detail)
        if item.bytes:  # a file, or the rest of one
            counts = self.refused.setdefault(item.reason, [0, 0, item.do])
            counts[0] += 1
            counts[1] += item.bytes

    def document(self, item: Document) -> None:
        source = self.task.source_ids[item.source]
        if source not in self.sources:
            self.sources[source] = [0, item.kind, item.encoding]
        self.sources[source][0] += 1
        text, changed = normalise(item.text, fix_mojibake=self.cleaning.fix_mojibake)
        data = text.encode("utf-8")
        size = len(data) if text is item.text else len(item.text.encode("utf-8", "surrogatepass"))
        self.flows["read"].passed(size, size)
        self.replaced += item.replaced
        if changed:
            self.flows["normalise"].changed.update(changed)
        if not data or text.isspace():
            self.flows["normalise"].drop(size, "empty text")
            self.drop(item.where, "empty text", "nothing is left after cleaning")
            return
        self.flows["normalise"].passed(size, len(data))
        for name in self.cleaning.filters:
            reason = judge(name, text)
            if reason is not None:
                self.flows[f"filter:{name}"].drop(len(data), reason)
                self.drop(item.where, f"filter {name}", reason)
                return
            self.flows[f"filter:{name}"].passed(len(data), len(data))
            not_judged = unfit(name, text)
            if not_judged is not None:
                self.flows[f"filter:{name}"].changed[not_judged] += 1
        self._keep(item, source, data)

    def _keep(self, item: Document, source: int, data: bytes) -> None:
        digest = text_hash(data)
        high, low = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        group = group_hash(item.group)
        self.rows.append((self.offset, len(data), high, low, group, source, item.line, item.part))
        self.texts.append(data)
        self.offset += len(data)
        self.held += len(data)
        if self.held >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self.rows:
            return
        self.files[".txt"].write(b"".join(self.texts))
        self.files[".documents"].write(np.array(self.rows, STAGED).tobytes())
        if self.cleaning.near_duplicates:
            found, owners = signatures(self.texts)
            self.files[".signatures"].write(found.tobytes())
            self.files[".signed"].write((owners + self.documents).astype("<u4").tobytes())
            self.signed += len(found)
        self.documents += len(self.rows)
        self.texts, self.rows, self.held = [], [], 0


def group_hash(group: str | None) -> int:
    """64-bit hash of a group's key; 0 stands for no group."""
    if group is None:
        return 0
    digest = hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def ending_of(path: Path, ending: str) -> Path:
    """A file of the part at `path`."""
    return path.with_name(path.name + ending)


class Part:
    """A finished part."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path, self.meta = path, meta
        self.count: int = meta["documents"]

    @classmethod
    def find(cls, path: Path) -> Part | None:
        """The part at `path`, if it is complete."""
        try:
            return cls(path, json.loads(ending_of(path, ".json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @property
    def text_path(self) -> Path:
        return ending_of(self.path, ".txt")

    def rows(self) -> np.ndarray:
        """`STAGED` [documents], read into memory."""
        return np.fromfile(ending_of(self.path, ".documents"), STAGED)

    def signatures(self) -> np.ndarray:
        """uint32 [signed, PERMUTATIONS]."""
        return np.fromfile(ending_of(self.path, ".signatures"), "<u4").reshape(-1, PERMUTATIONS)

    def signed(self) -> np.ndarray:
        """The document (in this part) of each signature, uint32 [signed]."""
        return np.fromfile(ending_of(self.path, ".signed"), "<u4")

    def dropped(self) -> Iterator[bytes]:
        """The JSON lines of what was dropped while reading and cleaning."""
        with ending_of(self.path, ".dropped").open("rb") as file:
            yield from file


def read_texts(path: Path, rows: np.ndarray) -> list[bytes]:
    """The texts of consecutive `STAGED` rows of one part."""
    if not len(rows):
        return []
    first = int(rows["offset"][0])
    ends = (rows["offset"] + rows["bytes"]).tolist()
    with path.open("rb") as file:
        file.seek(first)
        data = file.read(ends[-1] - first)
    return [data[begin - first : end - first] for begin, end in zip(rows["offset"].tolist(), ends)]
