"""Which rows are held out: those of files named so, else a keyed share of the inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ownlm.console.errors import Refused, UsageError
from ownlm.tasks.dataset import DataSet
from ownlm.tasks.items import Item, input_text

MOST_HELD_OUT = 2000  # rows: a figure is then known to about 2 points, and more would cost time


def divided(data: DataSet, share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(rows to train on, rows held out).

    Rows with the same input are on one side. Files whose names say that they are for validation or test decide, when
    there are some; else `share` of the rows is held out, at most 2,000.

    Raises:
        UsageError: a share that is none, or beside such files.
    """
    if not 0 <= share < 1:
        raise UsageError(
            f"{share:g} is not possible; it must be at least 0 and below 1.", where="--validation"
        )
    named = [part for part in data.parts if part.held_out and part.items]
    if named:
        train = [item for part in data.parts if not part.held_out for item in part.items]
        return train, [item for part in named for item in part.items]
    items = list(data.items())
    share = min(share, MOST_HELD_OUT / max(1, len(items)))
    limit = int(share * 2**64)
    sides: tuple[list[Item], list[Item]] = ([], [])
    for item in items:
        sides[_place(item, seed) < limit].append(item)
    return sides


def on_both_sides(train: Iterable[Item], held_out: Iterable[Item]) -> list[tuple[str, str]]:
    """(where it is held out, where it is trained) of inputs that are on both sides."""
    seen: dict[str, str] = {}
    for item in train:
        seen.setdefault(_normal(item), item.where)
    return [(item.where, seen[words]) for item in held_out if (words := _normal(item)) in seen]


def refuse_overlap(pairs: list[tuple[str, str]], held_out: int) -> None:
    """Refuse held-out rows that are trained on.

    Raises:
        Refused: there are some.
    """
    if not pairs:
        return
    there, here = pairs[0]
    raise Refused(
        f"{len(pairs):,} of {held_out:,} held-out rows have the same input as a row that is trained.",
        where=there,
        why=f"The first is trained at {here}. The figures would measure memory.",
        do="take them out of one side, or --allow-overlap",
    )


def _normal(item: Item) -> str:
    return " ".join(input_text(item).split()).casefold()


def _place(item: Item, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0{_normal(item)}".encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
