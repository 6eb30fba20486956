"""Which documents are for training and which for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.catalogue import BOTH, GROUP, TRAIN, VALIDATION, Catalogue
from ownlm.corpus.dedup import Clusters
from ownlm.corpus.hashes import unit

FEW = 20  # below this many documents a share of them is no longer a share of the text
HASH_SHARE, TAIL_SHARE = 0.05, 0.1
USAGE = (
    "hash:0.05 (a share of the documents), tail:0.1 (the end of each document), none, or files and folders"
)


@dataclass(frozen=True)
class Rule:
    """How validation text is chosen.

    Attributes:
        kind: "auto", "hash", "tail", "paths" or "none".
        share: of the documents (hash) or of each document (tail).
        paths: the sources that are the validation set.
    """

    kind: str
    share: float = 0.0
    paths: tuple[str, ...] = ()

    @classmethod
    def parse(cls, values: Sequence[str]) -> Rule:
        """The rule that `--validation` names.

        Raises:
            UsageError: a share that is not between 0 and 1; paths mixed with a rule.
        """
        if list(values) in ([], ["auto"]):
            return cls("auto")
        if list(values) == ["none"]:
            return cls("none")
        kind, colon, share = values[0].partition(":")
        if len(values) == 1 and colon and kind in ("hash", "tail"):
            try:
                number = float(share)
            except ValueError:
                number = 0.0
            if not 0 < number < 1:
                raise UsageError(
                    f"{share!r} is not a share between 0 and 1.", where="--validation", why=USAGE + "."
                )
            return cls(kind, number)
        if len(values) == 1 and kind in ("hash", "tail"):
            do = f"--validation {kind}:{HASH_SHARE if kind == 'hash' else TAIL_SHARE}"
            raise UsageError(f"{kind} needs a share.", where="--validation", do=do)
        for value in values:
            if value in ("auto", "none") or value.partition(":")[0] in ("hash", "tail"):
                raise UsageError(
                    f"{value!r} cannot stand beside other values.", where="--validation", why=USAGE + "."
                )
        return cls("paths", paths=tuple(values))


def assign(
    rule: Rule,
    catalogue: Catalogue,
    fate: np.ndarray,
    clusters: Clusters,
    *,
    grouped: bool,
    validation_documents: int,
    seed: int,
) -> dict[str, Any]:
    """Set the fate of every kept document.

    Args:
        rule: how.
        catalogue: the documents.
        fate: uint8 [documents], TRAIN for what is kept so far; changed in place.
        clusters: what must stay on one side: duplicates that were kept, and groups.
        grouped: whether `--group-by` is in use.
        validation_documents: with a rule "paths", how many documents at the beginning are the validation set.
        seed: of the choice.

    Returns:
        {"rule": the sentence for the manifest, "kind", "share"}.

    Raises:
        Refused: one side would be empty.
    """
    if rule.kind == "auto":
        few = int(np.count_nonzero(fate == TRAIN)) < FEW and not grouped
        rule = Rule("tail", TAIL_SHARE) if few else Rule("hash", HASH_SHARE)
        why = f": fewer than {FEW} documents" if few else ""
    else:
        why = ""
    said: dict[str, Any] = {"kind": rule.kind, "share": rule.share}
    if rule.kind == "none":
        return said | {"rule": "none (--validation none)"}
    if rule.kind == "paths":
        return said | {"rule": _by_paths(rule, fate, clusters, validation_documents)}
    if rule.kind == "tail":
        return said | {"rule": _by_tail(rule, fate, clusters, grouped) + why}
    return said | {"rule": _by_hash(rule, catalogue, fate, clusters, grouped, seed)}


def _by_paths(rule: Rule, fate: np.ndarray, clusters: Clusters, validation_documents: int) -> str:
    fate[:validation_documents][fate[:validation_documents] == TRAIN] = VALIDATION
    if not np.any(fate == VALIDATION):
        raise Refused("holds no text that could be read.", where=f"--validation {rule.paths[0]}")
    kept = np.flatnonzero(fate == TRAIN)
    # The validation files are read first, so the root of a cluster with any of them is one of them.
    fate[kept[clusters.roots(kept) < validation_documents]] = GROUP
    if not np.any(fate == TRAIN):
        raise Refused(
            "no text is left for training.", why="All of it is in the validation files, or a copy of them."
        )
    return "the files of --validation " + " ".join(rule.paths)


def _by_tail(rule: Rule, fate: np.ndarray, clusters: Clusters, grouped: bool) -> str:
    if grouped:
        raise UsageError(
            "the end of each document would be split from its group.",
            where=f"--validation tail:{rule.share:g}",
            do="ownlm prepare … --group-by … --validation hash:0.05",
        )
    shared = np.zeros(len(fate), bool)
    kept = np.flatnonzero(fate == TRAIN)
    roots = clusters.roots(kept)
    shared[roots[roots != kept]] = True
    # Copies of one text stay on one side: only a document without copies is cut.
    fate[kept[~shared[roots]]] = BOTH
    return f"the last {rule.share:.0%} of each document"


def _by_hash(
    rule: Rule, catalogue: Catalogue, fate: np.ndarray, clusters: Clusters, grouped: bool, seed: int
) -> str:
    lowest = 1.0
    for part in catalogue.chunks():
        numbers, kept = _numbers(catalogue, fate, clusters, part, seed)
        fate[kept[numbers < rule.share]] = VALIDATION
        lowest = min(lowest, float(numbers.min(initial=1.0)))
    unit_word = "group" if grouped else "document"
    sentence = f"{rule.share:.0%} of the {unit_word}s, by hash (seed {seed})"
    if not np.any(fate == VALIDATION):
        for part in catalogue.chunks():
            numbers, kept = _numbers(catalogue, fate, clusters, part, seed)
            fate[kept[numbers <= lowest]] = VALIDATION
        sentence += f"; none fell into that share, so the {unit_word} with the lowest hash was taken"
    if not np.any(fate == TRAIN):
        raise Refused(
            f"all text is one {unit_word}: nothing would be left for training.",
            why="A group, and copies of one text, are never split between training and validation.",
            do="ownlm prepare … --validation none",
        )
    return sentence


def _numbers(
    catalogue: Catalogue, fate: np.ndarray, clusters: Clusters, part: slice, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """([0, 1) numbers of the kept documents of a chunk, their documents); one number for a whole cluster."""
    kept = np.flatnonzero((fate[part] == TRAIN) | (fate[part] == VALIDATION)) + part.start
    first = catalogue.rows[clusters.roots(kept)]
    keys = np.where(first["group"] != 0, first["group"], first["low"])
    return unit(keys, seed, "validation split"), kept


def tail_cut(text: bytes, share: float) -> int:
    """Where the validation part of a text begins: the line end nearest after `1 - share`, else before it.

    Args:
        text: UTF-8.
        share: of the text that is for validation.

    Returns:
        An offset in bytes, at a character; `len(text)` when the text is too short to be cut.
    """
    target = round(len(text) * (1 - share))
    cut = text.find(b"\n", target) + 1
    if not cut or cut == len(text):
        cut = text.rfind(b"\n", 0, target) + 1
    if cut <= len(text) * (1 - 2 * share):  # one line, or lines longer than the tail: a word end will do
        cut = max(text.rfind(b" ", 0, target) + 1, 0)
    if cut <= len(text) * (1 - 2 * share):
        cut = target
        while 0 < cut < len(text) and 0x80 <= text[cut] < 0xC0:
            cut -= 1
    return cut if 0 < cut < len(text) else len(text)
