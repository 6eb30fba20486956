"""Word, PowerPoint, Excel and PDF files through markitdown; zip archives are measured before that."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.readers.opening import Opened
from ownlm.corpus.readers.settings import ReadSettings

MAX_MEMBERS = 10_000
MAX_EXPANDED = 1 << 30  # bytes of all members together
MAX_RATIO = 200  # expanded / packed; the XML of a large sheet reaches 30
RATIO_FROM = 16 << 20  # expanded bytes from which the ratio counts
MAX_PDF = 512 << 20

_IMAGE = re.compile(r"!\[([^\]\n]*)\]\([^)\n]*\)")


def read(file: SourceFile, settings: ReadSettings, opened: Opened) -> Iterator[Document | Dropped]:
    """One document a file, in Markdown."""
    reason = over_limits(file)
    if reason:
        yield Dropped(file.name, reason, bytes=file.size)
        return
    from markitdown import MarkItDownException, StreamInfo

    try:
        with Path(file.path).open("rb") as stream:
            kind = StreamInfo(extension=f".{file.kind}")
            converted = _converter().convert_stream(stream, stream_info=kind)
    except (MarkItDownException, AssertionError, ValueError, OSError) as error:
        words = " ".join(str(error).split())[-200:]
        yield Dropped(file.name, f"{file.kind} cannot be converted", words, file.size)
        return
    text = _IMAGE.sub(r"\1", converted.text_content).strip()
    if text:
        yield Document(text, file.name, 1, settings.path_group(file), file.kind, "utf-8")
    else:
        detail = "no text layer: scanned pages need OCR" if file.kind == "pdf" else ""
        yield Dropped(file.name, "empty text", detail, file.size)


def over_limits(file: SourceFile) -> str:
    """Why a file is not given to the converter, or "".

    The sizes are those the archive's directory claims; Python's zipfile reads no member beyond its claim.
    """
    if file.kind == "pdf":
        return f"pdf over {MAX_PDF >> 20} MB" if file.size > MAX_PDF else ""
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return f"damaged {file.kind}"
    expanded = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS:
        return f"{file.kind} with more than {MAX_MEMBERS:,} members"
    if expanded > MAX_EXPANDED or expanded > max(RATIO_FROM, MAX_RATIO * file.size):
        return f"{file.kind} that expands too far"
    return ""


@cache
def _converter() -> Any:
    """markitdown with these four formats only: a broken file must not be tried as something else."""
    from markitdown import MarkItDown
    from markitdown.converters import DocxConverter, PdfConverter, PptxConverter, XlsxConverter

    logging.getLogger("pdfminer").setLevel(logging.ERROR)  # it warns about every odd font
    markitdown = MarkItDown(enable_builtins=False, enable_plugins=False)
    for converter in (DocxConverter(), PptxConverter(), XlsxConverter(), PdfConverter()):
        markitdown.register_converter(converter)
    return markitdown
