"""The first pass: a reading task becomes a staged part on disk: cleaned texts, their hashes and signatures.

What a part is, `parts.py` says.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ownlm.corpus import workers
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.filters import judge, unfit
from ownlm.corpus.hashes import signatures, text_hash
from ownlm.corpus.normalise import is_normal, normalise
from ownlm.corpus.parts import ENDINGS, STAGED, Flow, Part, ending_of
from ownlm.corpus.readers import ReadTask, read_task

BATCH_BYTES = 2**20  # texts whose signatures are computed together
BATCH_CHARACTERS = 2**18  # of texts that are cleaned together


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
            part.add(item)
    workers.advance(task.read.source_bytes)
    return part.meta


class _Part:
    """A part being written."""

    def __init__(self, task: StageTask) -> None:
        self.task, self.cleaning = task, task.cleaning
        names = ["read", "normalise", *(f"filter:{name}" for name in task.cleaning.filters)]
        self.flows = {name: Flow() for name in names}
        self.sources: dict[int, list[Any]] = {}
        self.waiting: list[Document | Dropped] = []
        self.texts: list[bytes] = []
        self.kept: list[Document] = []
        self.documents = self.offset = self.held = self.signed = 0
        self.replaced = self.characters = 0
        self.refused: dict[str, list[Any]] = {}

    def __enter__(self) -> _Part:
        self.task.path.parent.mkdir(parents=True, exist_ok=True)
        self.files = {ending: self._temporary(ending).open("wb") for ending in ENDINGS}
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is None:
            self._clean()
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

    def add(self, item: Document | Dropped) -> None:
        """Take what was read; it is cleaned together with what comes after it."""
        self.waiting.append(item)
        self.characters += len(item.text) if isinstance(item, Document) else 1
        if self.characters >= BATCH_CHARACTERS:
            self._clean()

    def _clean(self) -> None:
        """Clean all that waits, in its order."""
        items, self.waiting, self.characters = self.waiting, [], 0
        documents = [item for item in items if isinstance(item, Document)]
        self._count_sources(documents)
        if not self._all_normal([document.text for document in documents]):
            for item in items:
                if isinstance(item, Document):
                    self.document(item)
                else:
                    self.not_read(item)
            return
        if len(documents) < len(items):
            for item in items:
                if isinstance(item, Dropped):
                    self.not_read(item)
        texts = [document.text.encode("utf-8") for document in documents]
        size = sum(map(len, texts))
        self.flows["read"].passed(size, size, len(texts))
        self.flows["normalise"].passed(size, size, len(texts))
        self.replaced += sum(document.replaced for document in documents)
        self._keep(documents, texts)

    def _all_normal(self, texts: list[str]) -> bool:
        """Whether every text is kept as it is: most are, and then they need not be looked at one by one."""
        if self.cleaning.filters or self.cleaning.fix_mojibake:
            return False
        return is_normal(texts) and all(texts) and not any(map(str.isspace, texts))

    def _count_sources(self, documents: list[Document]) -> None:
        for document in documents:
            source = self.task.source_ids[document.source]
            if source not in self.sources:
                self.sources[source] = [0, document.kind, document.encoding]
            self.sources[source][0] += 1

    def document(self, item: Document) -> None:
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
        self._keep([item], [data])

    def _keep(self, documents: list[Document], texts: list[bytes]) -> None:
        self.kept += documents
        self.texts += texts
        self.held += sum(map(len, texts))
        if self.held >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self.texts:
            return
        self.files[".txt"].write(b"".join(self.texts))
        self.files[".documents"].write(self._rows().tobytes())
        if self.cleaning.near_duplicates:
            found, owners = signatures(self.texts)
            self.files[".signatures"].write(found.tobytes())
            self.files[".signed"].write((owners + self.documents).astype("<u4").tobytes())
            self.signed += len(found)
        self.documents += len(self.texts)
        self.offset += self.held
        self.texts, self.kept, self.held = [], [], 0

    def _rows(self) -> np.ndarray:
        """`STAGED` rows of the documents that are held."""
        rows = np.zeros(len(self.kept), STAGED)
        sizes = np.array([len(text) for text in self.texts], np.uint64)
        rows["offset"] = self.offset + np.cumsum(sizes) - sizes
        rows["bytes"] = sizes
        digests = np.frombuffer(b"".join(map(text_hash, self.texts)), "<u8").reshape(-1, 2)
        rows["high"], rows["low"] = digests.T
        rows["group"] = [group_hash(document.group) for document in self.kept]
        rows["source"] = [self.task.source_ids[document.source] for document in self.kept]
        rows["line"] = [document.line for document in self.kept]
        rows["part"] = [document.part for document in self.kept]
        return rows


def group_hash(group: str | None) -> int:
    """64-bit hash of a group's key; 0 stands for no group."""
    if group is None:
        return 0
    digest = hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
