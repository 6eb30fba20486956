"""How sources are read, and the group key of a document."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

from ownlm.console.errors import UsageError
from ownlm.corpus.discover import SourceFile


@dataclass(frozen=True)
class ReadSettings:
    """What a person may set about reading.

    Attributes:
        column: the column (JSON key, CSV or Parquet column) that holds the text.
        documents: "file": one a plain text file; "line": one a line, blank ones left out.
        group_by: None; "folder": the folder a file lies in; "re:PATTERN": the first group of a regular
            expression searched in the path; "column:NAME" or NAME: a column of tables. A document without
            a key has group None.

    Raises:
        UsageError: the regular expression is not valid or has no group.
    """

    column: str = "text"
    documents: Literal["file", "line"] = "file"
    group_by: str | None = None

    def __post_init__(self) -> None:
        pattern = self._pattern  # a wrong pattern must fail before the reading starts
        if pattern is not None and not pattern.groups:
            where = f"--group-by {self.group_by}"
            raise UsageError("has no group: put the part that is the key in ( ).", where=where)

    def __getstate__(self) -> dict[str, Any]:
        return {"column": self.column, "documents": self.documents, "group_by": self.group_by}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        if self.group_by is None or not self.group_by.startswith("re:"):
            return None
        try:
            return re.compile(self.group_by[3:])
        except re.error as error:
            where = f"--group-by {self.group_by}"
            raise UsageError(f"not a regular expression: {error}.", where=where) from None

    @cached_property
    def group_column(self) -> str | None:
        """The column that holds the group key, or None."""
        if self.group_by is None or self.group_by == "folder" or self._pattern is not None:
            return None
        return self.group_by.removeprefix("column:")

    def path_group(self, file: SourceFile) -> str | None:
        """The group key that the path gives, or None."""
        if self.group_by == "folder":
            return str(PurePosixPath(file.name).parent)
        found = self._pattern.search(file.name) if self._pattern is not None else None
        return found[1] if found else None
