"""Plain text and source code: one document a file, a piece of a giant file, or a line."""

from __future__ import annotations

from collections.abc import Iterator

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.readers.blocks import Block, decode_block
from ownlm.corpus.readers.settings import ReadSettings

EMPTY = "empty text"


def parse(
    file: SourceFile, block: Block, encoding: str, settings: ReadSettings
) -> Iterator[Document | Dropped]:
    """The documents of one block of a plain text file."""
    if block.too_long:
        yield Dropped(f"{file.name}:{block.line}", "line longer than 64 MB")
        return
    text, replaced = decode_block(block.data, encoding)
    group = settings.path_group(file)
    if settings.documents == "line":
        for number, line in enumerate(text.split("\n"), block.line):
            if line and not line.isspace():
                lost = line.count("\ufffd") if replaced else 0
                yield Document(
                    line.removesuffix("\r"), file.name, number, group, file.kind, encoding, 0, lost
                )
    elif not text or text.isspace():
        yield Dropped(f"{file.name}:{block.line}", EMPTY)
    else:
        yield Document(text, file.name, block.line, group, file.kind, encoding, block.part, replaced)
