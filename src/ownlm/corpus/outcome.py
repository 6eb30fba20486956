"""What `prepare` made, in words and numbers: the manifest, the dropped documents, the sources."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ownlm import __version__
from ownlm.corpus.catalogue import EXACT, GROUP, NEAR, Catalogue, Decisions
from ownlm.corpus.discover import Found, SourceFile, valid_name
from ownlm.corpus.kinds import with_file
from ownlm.corpus.parts import Flow, Part
from ownlm.corpus.sample import Vocabulary
from ownlm.corpus.settings import PrepareSettings
from ownlm.corpus.shards import FORMAT, SPLITS, Corpus
from ownlm.corpus.tokenizer import Tokenizer

REASONS = {
    EXACT: "exact duplicate",
    NEAR: "near duplicate",
    GROUP: "shares a group, or its text, with the validation files",
}


@dataclass
class Outcome:
    """A corpus, and how long each pass took (not kept in the corpus, which is the same whenever it is made).

    Attributes:
        corpus: the finished corpus.
        already: it was there before.
        seconds: by pass.
    """

    corpus: Corpus
    already: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def steps(
    settings: PrepareSettings,
    parts: Sequence[Part],
    source_bytes: int,
    catalogue: Catalogue,
    decisions: Decisions,
) -> list[dict[str, Any]]:
    """The steps of the manifest, each with what went in, came out and was dropped."""
    flows: dict[str, Flow] = {}
    for part in parts:
        for name, counts in part.meta["steps"].items():
            flows.setdefault(name, Flow()).add(counts)
    flows["read"].bytes_in = source_bytes
    documents, sizes = fate_totals(catalogue, decisions)
    for name, fate in (("exact duplicates", EXACT), ("near duplicates", NEAR), ("split", GROUP)):
        before = next(reversed(flows.values()))
        flow = Flow(before.documents_out, before.documents_out, before.bytes_out, before.bytes_out)
        if documents[fate]:
            flow.dropped[REASONS[fate]] = documents[fate]
            flow.documents_out -= documents[fate]
            flow.bytes_out -= sizes[fate]
        flows[name] = flow
    last = flows["split"]
    flows["encode"] = Flow(last.documents_out, last.documents_out, last.bytes_out, last.bytes_out)
    found = [{"step": name, **flow.as_dict()} for name, flow in flows.items()]
    notes = {
        "near duplicates": _near_note(settings, decisions),
        "split": str(decisions.notes["split"]["rule"]),
    }
    for step in found:
        if notes.get(step["step"]):
            step["note"] = notes[step["step"]]
    return found


def _near_note(settings: PrepareSettings, decisions: Decisions) -> str:
    if settings.near != settings.near_duplicates:
        return "not looked for: the package rensa is not installed (pip install 'ownlm[data]')"
    if settings.near == "off":
        return "not looked for (--near-duplicates off)"
    if settings.near == "group":
        together = np.count_nonzero(decisions.similarity)
        return f"{together:,} kept, each on one side with those it resembles (--near-duplicates group)"
    return ""


def fate_totals(catalogue: Catalogue, decisions: Decisions) -> tuple[list[int], list[int]]:
    """(documents, bytes) of each fate."""
    documents, sizes = np.zeros(6, np.int64), np.zeros(6, np.int64)
    for part in catalogue.chunks():
        fate = np.asarray(decisions.fate[part])
        documents += np.bincount(fate, minlength=6)
        for code in np.unique(fate).tolist():
            sizes[code] += int(catalogue.rows["bytes"][part][fate == code].sum())
    return documents.tolist(), sizes.tolist()


def describe_sources(found: Found, files: Sequence[SourceFile], parts: Sequence[Part]) -> dict[str, Any]:
    """The manifest's "sources": files and bytes, read and not read; every byte is in one of the two."""
    not_read: list[dict[str, Any]] = [
        {
            "reason": group.reason,
            "files": group.files,
            "bytes": group.bytes,
            "examples": [valid_name(path) for path in group.examples],
            "do": with_file(group.do, valid_name(group.examples[0])),
            "by_rule": group.by_rule,
        }
        for group in found.not_read
    ]
    refused: dict[str, dict[str, Any]] = {}
    for part in parts:
        for reason, count, size, do in part.meta["not_read"]:
            entry = refused.setdefault(
                reason,
                {"reason": reason, "files": 0, "bytes": 0, "examples": [], "do": "", "by_rule": False},
            )
            entry["files"] += count
            entry["bytes"] += size
            entry["do"] = entry["do"] or do
    not_read = sorted([*not_read, *refused.values()], key=lambda entry: (-entry["bytes"], -entry["files"]))
    return {
        "files": len(files),
        "bytes": sum(part.meta["source_bytes"] for part in parts)
        - sum(entry["bytes"] for entry in refused.values()),
        "bytes_not_read": sum(entry["bytes"] for entry in not_read if not entry["by_rule"]),
        "not_read": not_read,
    }


def describe_tokenizer(
    vocabulary: Vocabulary, tokenizer: Tokenizer, train: dict[str, Any], counts: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """The manifest's "tokenizer"."""
    fallbacks: Counter[str] = Counter()
    for piece in counts:
        fallbacks.update(piece["fallbacks"])
    return {
        "type": vocabulary.type,
        "vocab_size": tokenizer.vocab_size,
        "sha256": tokenizer.sha256,
        "bytes_per_token": round(train["bytes"] / max(train["tokens"], 1), 4),
        "sample_bytes": vocabulary.sample_bytes,
        "why": vocabulary.why,
        "fast": tokenizer.fast,
        "fast_reason": tokenizer.fast_reason,
        "fallbacks": dict(sorted(fallbacks.items())),
    }


def describe_splits(
    counts: Sequence[dict[str, Any]], shards: dict[str, list[dict[str, Any]]], rule: str
) -> dict[str, Any]:
    """The manifest's "splits"."""
    splits: dict[str, Any] = {}
    for name in SPLITS:
        documents, tokens, size = (sum(piece[name][column] for piece in counts) for column in range(3))
        splits[name] = {"documents": documents, "bytes": size, "tokens": tokens, "shards": shards[name]}
    splits["validation"]["rule"] = rule
    return splits


def skeleton(settings: PrepareSettings) -> dict[str, Any]:
    """The head of the manifest."""
    return {"format": FORMAT, "ownlm": __version__, "hash": "", "settings": settings.content()}


def write_dropped(path: Path, catalogue: Catalogue, decisions: Decisions) -> None:
    """One JSON line a dropped document: where it was, why, and for duplicates which one was kept."""
    with path.open("wb") as output:
        for part in catalogue.parts:
            output.writelines(part.dropped())
        for span in catalogue.chunks():
            gone = np.flatnonzero(np.asarray(decisions.fate[span]) >= EXACT) + span.start
            for document in gone.tolist():
                fate = int(decisions.fate[document])
                reason = REASONS[fate]
                if fate == NEAR and decisions.similarity[document]:
                    reason += f", similarity {decisions.similarity[document]:.2f}"
                line = {"where": catalogue.where(document), "reason": reason}
                if fate != GROUP:
                    line["kept"] = catalogue.where(int(decisions.kept[document]))
                output.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8"))


def write_sources(path: Path, files: Sequence[SourceFile], parts: Iterable[Part]) -> None:
    """One JSON line a source file; `documents` counts what was read from it, before cleaning."""
    documents = np.zeros(len(files), np.int64)
    encodings: dict[int, str] = {}
    for part in parts:
        for source, count, _, encoding in part.meta["sources"]:
            documents[source] += count
            encodings[source] = encoding
    with path.open("w", encoding="utf-8", newline="\n") as output:
        for number, file in enumerate(files):
            line = {
                "id": number,
                "path": file.name,
                "bytes": file.size,
                "documents": int(documents[number]),
                "kind": file.kind,
                "encoding": encodings.get(number),
            }
            output.write(json.dumps(line, ensure_ascii=False) + "\n")
