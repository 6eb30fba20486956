"""What reading yields: documents with the place they came from, and what was dropped with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Document:
    """One text as it was read, before any cleaning.

    Attributes:
        text: the decoded text; may hold lone surrogates (JSON escapes): `normalise` removes them.
        source: name of its file, as typed or below the typed folder; equals `SourceFile.name`.
        line: its first line in the source, counted from 1; for Parquet and Office files the row or part.
        group: the key of `--group-by`, or None when the document has none.
        kind: how it was read: "text", "html", "jsonl", "csv", …
        encoding: codec of the source ("utf-8", "gb18030", …).
        part: 0 for a whole document, 1, 2, … for the pieces of a giant text file.
        replaced: how many U+FFFD stand for bytes that could not be decoded.
    """

    text: str
    source: str
    line: int
    group: str | None
    kind: str
    encoding: str
    part: int = 0
    replaced: int = 0

    @property
    def where(self) -> str:
        """`file:line`, as `dropped.jsonl` writes it."""
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something that was not read.

    Attributes:
        where: `file` when the whole file was refused, `file:line` for a row of it.
        reason: a class of reasons, few of them, so that they can be counted.
        detail: what is special in this case (the decoder's words, the columns that are there).
        bytes: size on disk of a file refused as a whole; 0 for a row.
        do: the command that would read it, when there is one.
    """

    where: str
    reason: str
    detail: str = ""
    bytes: int = 0
    do: str = ""
