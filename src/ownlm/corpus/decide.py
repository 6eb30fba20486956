"""What becomes of every staged document: a duplicate, training or validation text."""

from __future__ import annotations

import numpy as np

from ownlm.console.errors import UsageError
from ownlm.corpus.catalogue import EXACT, NEAR, TRAIN, Catalogue, Decisions, mapped, zeros
from ownlm.corpus.dedup import Clusters, exact_duplicates, link_near_duplicates
from ownlm.corpus.hashes import PERMUTATIONS
from ownlm.corpus.settings import PrepareSettings
from ownlm.corpus.split import assign


def decide(
    decisions: Decisions, catalogue: Catalogue, settings: PrepareSettings, validation_documents: int
) -> None:
    """Fill `decisions` for all documents.

    Args:
        decisions: new ones, all zero.
        catalogue: the documents; those of validation files first, so that they are kept of any duplicates.
        settings: of this corpus.
        validation_documents: how many of the first documents come from validation files.
    """
    folder = decisions.folder / "sorting"
    folder.mkdir()
    parent = folder / "parent"
    zeros(parent, 8 * len(catalogue))
    clusters = Clusters(mapped(parent, np.dtype(np.int64)))
    fate = decisions.fate
    original = exact_duplicates(catalogue.rows["high"], catalogue.rows["low"], folder)
    copies = np.flatnonzero(original != np.arange(len(original)))
    clusters.unite(original[copies], copies)
    if settings.exact_duplicates == "keep":
        across = copies[(original[copies] < validation_documents) & (copies >= validation_documents)]
        fate[across] = EXACT
    else:
        fate[copies] = EXACT
    if settings.near != "off":
        _near(decisions, catalogue, original, clusters)
    for part in catalogue.chunks():
        decisions.kept[part] = clusters.roots(np.arange(part.start, part.stop))
    if settings.near == "drop":
        for part in catalogue.chunks():
            source = original[part]
            near = (decisions.kept[source] != source) & (fate[part] == TRAIN)
            fate[part][near] = NEAR
    if settings.group_by is not None:
        clusters.unite_equal(catalogue.rows["group"], folder)
        _check_groups(catalogue, settings.group_by)
    decisions.notes["split"] = assign(
        settings.rule,
        catalogue,
        fate,
        clusters,
        grouped=settings.group_by is not None,
        validation_documents=validation_documents,
        seed=settings.seed,
    )
    if settings.group_by is not None and (alone := _without_group(catalogue)):
        decisions.notes["split"]["rule"] += f"; {alone:,} documents have no group, each is one of its own"


def _without_group(catalogue: Catalogue) -> int:
    return sum(int(np.count_nonzero(catalogue.rows["group"][part] == 0)) for part in catalogue.chunks())


def _check_groups(catalogue: Catalogue, group_by: str) -> None:
    """Groups that no document has protect nothing: most likely the name or pattern is wrong."""
    if _without_group(catalogue) < len(catalogue):
        return
    if group_by.startswith("re:"):
        why = "The pattern is found in no path."
    else:
        why = f"{group_by.removeprefix('column:')} is taken as a column, which no table has."
    do = "ownlm prepare … --group-by folder, a column, or 're:PATTERN' with one ( )"
    raise UsageError("no document has a group.", where=f"--group-by {group_by}", why=why, do=do)


def _near(decisions: Decisions, catalogue: Catalogue, original: np.ndarray, clusters: Clusters) -> None:
    """Link near duplicates among the documents that are not exact copies of an earlier one."""
    path = decisions.folder / "sorting" / "signatures"
    owners: list[np.ndarray] = [np.zeros(0, np.int64)]
    with path.open("wb") as file:
        for part, start in zip(catalogue.parts, catalogue.starts.tolist()):
            signed = part.signed().astype(np.int64) + start
            first = original[signed] == signed
            file.write(part.signatures()[first].tobytes())
            owners.append(signed[first])
    signatures = mapped(path, np.dtype("<u4")).reshape(-1, PERMUTATIONS)
    compared = link_near_duplicates(
        signatures, np.concatenate(owners), clusters, decisions.similarity, decisions.folder / "sorting"
    )
    decisions.notes["pairs_compared"] = compared
