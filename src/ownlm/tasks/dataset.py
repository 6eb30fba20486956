"""Files → rows of one shape, each an item of its task, with every exception."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ownlm.console.errors import UsageError, did_you_mean
from ownlm.corpus.discover import NotRead
from ownlm.tasks.items import Item
from ownlm.tasks.problems import BadRow, Problems
from ownlm.tasks.rows import Row
from ownlm.tasks.shapes import SHAPES, Shape, parse_map, recognise
from ownlm.tasks.sources import Source, find_sources


@dataclass
class Part:
    """What one source gave.

    Attributes:
        name: the file, or the two aligned files.
        held_out: its name says that it is for validation or test.
        rows: how many it has, those of other shapes too.
        items: those that can be used, in order.
    """

    name: str
    held_out: bool
    rows: int = 0
    items: list[Item] = field(default_factory=list)


@dataclass
class DataSet:
    """Rows of one shape.

    Attributes:
        shape: which.
        task: what they train: that of the shape, or the name that was asked for.
        parts: one a source.
        problems: what is wrong with rows.
        columns: column → how many of the rows that can be used have it.
        not_read: files that were found and are not read.
    """

    shape: Shape
    task: str
    parts: list[Part]
    problems: Problems
    columns: Counter[str]
    not_read: list[NotRead]

    def items(self) -> Iterator[Item]:
        """All that can be used, in the order of the sources."""
        for part in self.parts:
            yield from part.items

    @property
    def unused(self) -> dict[str, int]:
        """Columns that are not read, with the number of rows that have them, most frequent first."""
        return {name: number for name, number in self.columns.most_common() if name not in self.shape.used}

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(part.rows for part in self.parts)


def read_dataset(
    typed: Sequence[str | os.PathLike[str]], *, task: str | None = None, maps: Sequence[str] = ()
) -> DataSet:
    """Read data for fine-tuning.

    Args:
        typed: files and folders; two aligned text files for a translation.
        task: that of a shape, or a name in `shapes.SAME_ROWS`; found from the columns when not given.
        maps: `column=role` for columns that have other names.

    Raises:
        UsageError: nothing there, no such column or role.
        Refused: no shape fits the columns.
    """
    renamed = parse_map(maps)
    problems = Problems()
    sources, not_read = find_sources(typed)
    alone = all(source.held_out for source in sources)  # then it is what shall be trained on
    parts = [Part(source.name, source.held_out and not alone) for source in sources]
    read = [_renamed(source, problems, renamed) for source in sources]
    first = [row.values for rows in read for row in rows]
    _check_columns(first, renamed, sources)
    shape = recognise(first, task, renamed.values(), typed_name(typed))
    columns: Counter[str] = Counter()
    for part, rows in zip(parts, read):
        for row in rows:
            part.rows += 1
            _add(part, row, shape, problems, columns)
        rows.clear()
    return DataSet(shape, task or shape.task, parts, problems, columns, not_read)


def typed_name(typed: Sequence[str | os.PathLike[str]]) -> str:
    """What was typed, quoted for a shell."""
    return shlex.join(os.fspath(source) for source in typed)


def _renamed(source: Source, problems: Problems, renamed: Mapping[str, str]) -> list[Row]:
    rows = source.rows(problems)
    if not renamed:
        return list(rows)
    taken = set(renamed.values())
    return [
        Row(
            row.where,
            {
                renamed.get(name, name): cell
                for name, cell in row.values.items()
                if name in renamed or name not in taken
            },
        )
        for row in rows
    ]


def _check_columns(rows: list[dict[str, Any]], renamed: Mapping[str, str], sources: list[Source]) -> None:
    there = {name for row in rows for name in row}
    for column, role in renamed.items():
        if rows and role not in there:
            columns = sorted(there - set(renamed.values()))
            raise UsageError(
                f'no column "{column}".{did_you_mean(column, columns)}',
                where=sources[0].name,
                why=f"The columns are {', '.join(columns)}."[:300],
            )


def _add(part: Part, row: Row, shape: Shape, problems: Problems, columns: Counter[str]) -> None:
    def tell(kind: str, fix: str, detail: str) -> None:
        told.setdefault(kind, (fix, detail))

    told: dict[str, tuple[str, str]] = {}  # once a row and kind: rows are counted
    if shape.found(row.values) is None:
        other = next((known for known in SHAPES if known.found(row.values) is not None), None)
        looks = (
            f"It looks like {other.name}: put it into a file of its own."
            if other
            else f"Write {shape.looks_like}."
        )
        there = ", ".join(row.values)[:100] or "no columns"
        problems.bad(row.where, BadRow(f"not of the shape {shape.name}", looks, there))
        return
    try:
        item = shape.item(row.values, row.where, tell)
    except BadRow as bad:
        problems.bad(row.where, bad)
        return
    for kind, (fix, detail) in told.items():
        problems.tell(row.where, kind, fix, detail)
    columns.update(row.values.keys())
    part.items.append(item)
