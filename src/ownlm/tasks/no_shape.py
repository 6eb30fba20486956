"""The refusal of rows whose columns fit no shape, with the `--map` that would probably help."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ownlm.console.errors import Refused

FEW = 50  # different texts of a column that may be a label


class Known(Protocol):
    """What is asked of a shape here."""

    @property
    def task(self) -> str: ...

    @property
    def columns(self) -> Mapping[str, tuple[str, ...]]: ...

    @property
    def looks_like(self) -> str: ...


def no_shape(
    rows: Sequence[Mapping[str, Any]], task: str | None, shapes: Sequence[Known], where: str
) -> Refused:
    """The error for rows that fit none of the shapes.

    Args:
        rows: the first of them. task: what was asked for. shapes: those of that task, or all. where: the data as it was typed, quoted.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        return Refused("there is no row in it.", where=where, why="Nothing could be trained.")
    if task is None and columns == ["text"]:
        return Refused(
            "texts alone: nothing says what is asked and what is answered.",
            where=where,
            why="Plain text is for pretraining.",
            do=f"ownlm prepare {where} -o corpus",
        )
    known = "\n  ".join(f"{shape.task}: {shape.looks_like}" for shape in shapes)
    of_task, given = (f" of the task {task}", f" --task {task}") if task else ("", "")
    maps = " ".join(
        f"--map {shlex.quote(column)}={role}" for column, role in _likely(rows, columns, shapes).items()
    )
    return Refused(
        f"the columns fit no shape{of_task}. They are: {', '.join(columns)[:300]}.",
        where=where,
        why=f"Known are:\n  {known}\n",
        do=f"ownlm data check {where}{given} {maps}   (say which column is what)",
    )


def _likely(rows: Sequence[Mapping[str, Any]], columns: list[str], shapes: Sequence[Known]) -> dict[str, str]:
    """Column → role, guessed from the lengths of the texts and from how many there are: for the message alone."""
    texts = {
        name: [str(row[name]) for row in rows if isinstance(row.get(name), (str, int))] for name in columns
    }
    lengths = {name: sum(map(len, found)) / len(found) for name, found in texts.items() if found}
    longest = sorted(lengths, key=lambda name: -lengths[name])[:2]
    if len({shape.task for shape in shapes}) == 1:
        roles = list(shapes[0].columns)
    elif len(longest) == 2 and _is_label(texts[longest[1]]):
        roles = ["text", "label"]
    elif len(longest) == 2 and lengths[longest[0]] > 2 * lengths[longest[1]]:
        roles = ["document", "summary"]
    else:
        roles = ["prompt", "completion"]
    chosen = sorted(longest, key=columns.index) if roles == ["prompt", "completion"] else longest
    return dict(zip([*chosen, *(f"COLUMN{n}" for n in range(1, 4))], roles))


def _is_label(texts: list[str]) -> bool:
    return len(set(texts)) <= min(FEW, len(texts) // 2)
