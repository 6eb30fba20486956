"""Named entities: whole entities that are found, as the CoNLL-2003 shared task counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ownlm.evaluation.tasks.bootstrap import Figure, Floats, Table
from ownlm.evaluation.tasks.measured import Measured, precision_recall
from ownlm.evaluation.tasks.result import Row
from ownlm.tasks.items import Tagged

Entity = tuple[str, int, int]  # type, first word, word after the last

PREFIXES = "BILUESO"
BEGINS, ENDS, ALONE = "BUS", "LUES", "US"  # BIO; with E, S (IOBES) or L, U (BILOU)


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a row, by the rules of conlleval (Tjong Kim Sang & De Meulder 2003) and of seqeval.

    An entity goes on while its type stays and no tag begins a new one; an I without a B before it begins one too. A
    tag without a prefix ("PER") is read as I-PER.
    """
    found: list[Entity] = []
    kind, start, ended = "", 0, True
    for place, tag in enumerate([*tags, "O"]):
        prefix, name = _parts(tag)
        goes_on = not ended and prefix not in ("O", *BEGINS) and name == kind
        if not goes_on and not ended:
            found.append((kind, start, place))
            ended = True
        if prefix == "O":
            continue
        if not goes_on:
            kind, start, ended = name, place, False
        if prefix in ENDS:
            found.append((kind, start, place + 1))
            ended = True
    return found


def _parts(tag: str) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    prefix, dash, name = tag.partition("-")
    return (prefix, name) if dash and prefix in tuple(PREFIXES) else ("I", tag)


def measure_entities(items: Sequence[Tagged], predictions: Sequence[Mapping[str, Any]]) -> Measured:
    """The figures of `TagsPrediction`s.

    Raises:
        ValueError: a prediction has another number of tags than its row has words.
    """
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    there: Counter[str] = Counter()
    rows, sums = [], []
    for item, each in zip(items, predictions):
        if len(each["tags"]) != len(item.tokens):
            raise ValueError(f"{item.where}: {len(each['tags'])} tags for {len(item.tokens)} words")
        expected, got = set(entities(item.tags)), set(entities(each["tags"]))
        both = expected & got
        for counter, met in ((right, both), (found, got), (there, expected)):
            counter.update(kind for kind, _, _ in met)
        sums.append((len(both), len(got), len(expected)))
        rows.append(_row(item, expected, got))
    types = sorted({*found, *there})
    return Measured(
        _figures(np.array(sums, np.float64).reshape(-1, 3)),
        rows,
        classes=[precision_recall(name, right[name], found[name], there[name]) for name in types],
        notes=[] if there else ["No row has an entity: every entity found is wrong."],
    )


def _figures(rows: Floats) -> list[Figure]:
    """F1, precision and recall of all entities together; 0 where there is nothing to divide by."""
    table = Table(rows)

    def over(*columns: int) -> Any:
        def score(sums: Floats) -> Floats:
            total = sums[:, list(columns)].sum(axis=1)
            hits = sums[:, 0] * len(columns)
            return np.divide(hits, total, out=np.zeros_like(total), where=total > 0)

        return score

    return [
        Figure("entity_f1", table, over(1, 2), len(rows)),
        Figure("entity_precision", table, over(1), len(rows)),
        Figure("entity_recall", table, over(2), len(rows)),
    ]


def _row(item: Tagged, expected: set[Entity], got: set[Entity]) -> Row:
    total = len(expected) + len(got)
    f1 = 2 * len(expected & got) / total if total else 1.0
    return Row(
        item.where,
        " ".join(item.tokens),
        (_in_words(item, expected),),
        _in_words(item, got),
        expected == got,
        {"entity_f1": f1},
    )


def _in_words(item: Tagged, found: set[Entity]) -> str:
    """ "PER Ada Lovelace; LOC London", in their order."""
    ordered = sorted(found, key=lambda entity: entity[1:])
    return "; ".join(f"{kind} {' '.join(item.tokens[start:end])}" for kind, start, end in ordered)
