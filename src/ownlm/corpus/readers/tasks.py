"""The work of reading, cut into tasks that depend on the sources and the settings only.

Small files travel as names and are opened by the worker. A big text or JSON Lines file is read and
decompressed by the main process, in order, and travels as blocks of bytes. A big file of a serial format
(CSV, JSON array, Parquet) is parsed by the main process and travels as documents.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ownlm.console.errors import UsageError
from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.kinds import OFFICE_KINDS, ROW_KINDS
from ownlm.corpus.readers import csv_rows, html, json_rows, office, parquet, rows, text
from ownlm.corpus.readers.blocks import BLOCK, Block, lines, paragraphs
from ownlm.corpus.readers.opening import Opened
from ownlm.corpus.readers.settings import ReadSettings

SMALL = 8 << 20  # bytes on disk up to which a worker opens a file itself
SMALL_COMPRESSED = 1 << 20  # text expands 3 to 10 times
BATCH_FILES = 1000
OFFICE_WEIGHT = 16  # converting a document costs more than reading as many bytes of text

Item = Document | Dropped
Reader = Callable[[SourceFile, ReadSettings, Opened], Iterator[Item]]
Columns = Callable[[SourceFile], "dict[str, str] | None"]

# Formats of which a worker can parse any block of lines.
PARSERS: dict[str, Callable[[SourceFile, Block, str, ReadSettings], Iterator[Item]]] = {
    "text": text.parse,
    "jsonl": rows.parse_lines,
}
# Formats that must be read from their beginning.
READERS: dict[str, Reader] = {
    "json": json_rows.read,
    "csv": csv_rows.read,
    "tsv": csv_rows.read,
    "parquet": parquet.read,
    "html": html.read,
    **dict.fromkeys(OFFICE_KINDS, office.read),
}
COLUMNS: dict[str, Columns] = {
    "jsonl": rows.line_columns,
    "json": json_rows.columns,
    "csv": csv_rows.columns,
    "tsv": csv_rows.columns,
    "parquet": parquet.columns,
}


@dataclass(frozen=True, slots=True)
class ReadTask:
    """A piece of work for `read_task`: files to open, or one block of a file, or items that are ready.

    Attributes:
        index: 0, 1, 2, … in the order of the corpus.
        source_bytes: bytes on disk that this task stands for; all tasks together give the sizes of all files.
        settings: how to read.
        files: the files, in order; one for a block.
        encoding: of the block's source.
        block: the bytes to parse.
        items: documents and drops that the main process made already.
    """

    index: int
    source_bytes: int
    settings: ReadSettings
    files: tuple[SourceFile, ...] = ()
    encoding: str = "utf-8"
    block: Block | None = None
    items: tuple[Item, ...] | None = None


def plan_tasks(files: Iterable[SourceFile], settings: ReadSettings) -> Iterator[ReadTask]:
    """The tasks that read `files`, in order, made while they are taken.

    Raises:
        UsageError: a table typed by name has no text (or group) column; raised before the first task.
    """
    files = list(files)
    for file in files:
        if file.explicit and (refusal := missing_column(file, settings)) is not None:
            raise UsageError(f"{refusal.reason}.", where=file.name, why=refusal.detail + ".", do=refusal.do)
    for index, task in enumerate(_tasks(files, settings)):
        yield ReadTask(index, *task)


def read_task(task: ReadTask) -> Iterator[Item]:
    """The documents of a task, and what was dropped, in the order of the source."""
    if task.block is not None:
        file = task.files[0]
        yield from PARSERS[file.kind](file, task.block, task.encoding, task.settings)
    elif task.items is not None:
        yield from task.items
    else:
        for file in task.files:
            yield from read_file(file, task.settings)


def read_file(file: SourceFile, settings: ReadSettings) -> Iterator[Item]:
    """One file, whole, in this process."""
    refusal = None if file.explicit else missing_column(file, settings)
    if refusal is not None:
        yield refusal
        return
    opened = Opened(file)
    if file.kind in READERS:
        yield from READERS[file.kind](file, settings, opened)
        return
    for block in _blocks(file, settings, opened):
        yield from PARSERS[file.kind](file, block, opened.encoding, settings)
    yield from opened.problems()


def missing_column(file: SourceFile, settings: ReadSettings) -> Dropped | None:
    """Why a table cannot be read with these settings: its first rows lack the text or group column."""
    if file.kind not in ROW_KINDS or file.stream:
        return None
    try:
        found = COLUMNS[file.kind](file)
    except OSError as error:
        return Dropped(file.name, "cannot be read", error.strerror or str(error), file.size)
    if found is None:
        return None
    for option, column in (("--column", settings.column), ("--group-by", settings.group_column)):
        if column is not None and column not in found:
            there = f"The columns are {', '.join(found)}"[:400] if found else "Its rows are not objects"
            likely = difflib.get_close_matches(column, found, n=1)
            if option == "--column" and not likely:
                likely = sorted((name for name in found if found[name]), key=lambda name: -len(found[name]))
            do = shlex.join(["ownlm", "prepare", file.name, option, likely[0]]) + " …" if likely else ""
            return Dropped(file.name, f'no column "{column}"', there, file.size, do)
    return None


_Parts = tuple[int, ReadSettings, tuple[SourceFile, ...], str, Block | None, tuple[Item, ...] | None]


def _tasks(files: list[SourceFile], settings: ReadSettings) -> Iterator[_Parts]:
    batch: list[SourceFile] = []
    weight = 0
    for file in files:
        small = _is_small(file)
        if batch and (not small or len(batch) == BATCH_FILES or weight + _weight(file) > BLOCK):
            yield sum(f.size for f in batch), settings, tuple(batch), "", None, None
            batch, weight = [], 0
        if small:
            batch.append(file)
            weight += _weight(file)
        elif file.kind in READERS:
            yield from _item_tasks(file, settings)
        else:
            yield from _block_tasks(file, settings)
    if batch:
        yield sum(f.size for f in batch), settings, tuple(batch), "", None, None


def _is_small(file: SourceFile) -> bool:
    if file.kind not in PARSERS and file.kind not in ROW_KINDS:
        return True  # one document a file: nothing to divide
    return not file.stream and file.size <= (SMALL if file.compression is None else SMALL_COMPRESSED)


def _weight(file: SourceFile) -> int:
    if file.kind in OFFICE_KINDS:
        return file.size * OFFICE_WEIGHT
    return file.size if file.compression is None else file.size * (SMALL // SMALL_COMPRESSED)


def _blocks(file: SourceFile, settings: ReadSettings, opened: Opened) -> Iterator[Block]:
    if file.kind == "text" and settings.documents == "file":
        return paragraphs(opened)
    return lines(opened)


def _block_tasks(file: SourceFile, settings: ReadSettings) -> Iterator[_Parts]:
    refusal = None if file.explicit else missing_column(file, settings)
    if refusal is not None:
        yield file.size, settings, (file,), "", None, (refusal,)
        return
    opened, counted = Opened(file), 0
    for block in _blocks(file, settings, opened):
        yield opened.position - counted, settings, (file,), opened.encoding, block, None
        counted = opened.position
    problems = tuple(opened.problems())
    if problems or counted < file.size:
        yield max(0, file.size - counted), settings, (file,), "", None, problems


def _item_tasks(file: SourceFile, settings: ReadSettings) -> Iterator[_Parts]:
    """Documents of a file that only one process can parse, about `BLOCK` bytes of text a task."""
    opened, counted = Opened(file), 0
    refusal = None if file.explicit else missing_column(file, settings)
    items: list[Item] = []
    size = 0
    for item in [refusal] if refusal is not None else READERS[file.kind](file, settings, opened):
        items.append(item)
        size += len(item.text) if isinstance(item, Document) else 100
        if size >= BLOCK:
            yield opened.position - counted, settings, (file,), "", None, tuple(items)
            items, size, counted = [], 0, opened.position
    yield max(0, file.size - counted), settings, (file,), "", None, tuple(items)
