"""Parquet through pyarrow: only the needed columns, a few rows at a time. A document's line is its row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.readers.opening import Opened
from ownlm.corpus.readers.rows import Rows
from ownlm.corpus.readers.settings import ReadSettings

BATCH_ROWS = 256  # at 100 kB a row, about 25 MB at once

_PROBLEM = "damaged Parquet"


def read(file: SourceFile, settings: ReadSettings, opened: Opened) -> Iterator[Document | Dropped]:
    """One document a row; line 1 is the first row."""
    import pyarrow

    rows = Rows(file, settings)
    row = 0
    try:
        with open_parquet(file) as table:
            wanted = [name for name in (settings.column, settings.group_column) if name in _names(table)]
            total = max(1, table.metadata.num_rows)
            for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                for values in batch.to_pylist():
                    row += 1
                    yield rows.document(values, row, "utf-8")
                opened.raw.position = file.size * row // total
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        left = file.size - opened.raw.position
        yield Dropped(file.name, f"{_PROBLEM}: read up to there", f"row {row + 1}: {error}"[:300], left)


def columns(file: SourceFile) -> dict[str, str] | None:
    """The columns, those that hold strings with a sample; None when it is damaged (reading says so)."""
    import pyarrow

    try:
        with open_parquet(file) as table:
            return {
                name: "text" if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) else ""
                for name, kind in zip(table.schema_arrow.names, table.schema_arrow.types)
            }
    except (pyarrow.ArrowException, OSError):
        return None


def open_parquet(file: SourceFile) -> Any:
    """The table of a file, as pyarrow opens it: a context manager."""
    from pyarrow.parquet import ParquetFile

    # A header may claim any size: thrift strings and containers are limited to what real files need.
    return ParquetFile(
        file.path, pre_buffer=False, thrift_string_size_limit=64 << 20, thrift_container_size_limit=1 << 20
    )


def _names(table: Any) -> list[str]:
    return list(table.schema_arrow.names)
