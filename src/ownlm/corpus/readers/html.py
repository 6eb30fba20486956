"""The text of an HTML page: what a reader sees, block elements on lines of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from ownlm.corpus.discover import ICONV, SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.encodings import Decoded, NotText, UnknownEncoding, decode
from ownlm.corpus.kinds import with_file
from ownlm.corpus.readers.opening import Opened
from ownlm.corpus.readers.settings import ReadSettings
from ownlm.corpus.readers.text import EMPTY

MAX_PAGE = 64 << 20  # bytes
FEED = 1 << 18  # characters given to the parser at a time; what it has not finished, it reads again
MAX_MARKUP = 8 << 20  # characters of one tag, comment or script

_NO_TEXT = frozenset(("script", "style", "template", "svg", "iframe", "noscript", "select"))
_PARAGRAPH = frozenset(
    """p h1 h2 h3 h4 h5 h6 blockquote pre ul ol dl table figure form fieldset article section main
    header footer nav aside address details hr title""".split()  # noqa: SIM905 (a list is 30 lines long)
)
_LINE = frozenset(
    "br div li tr dt dd caption figcaption summary legend option body html".split()  # noqa: SIM905
)
_CELL = frozenset(("td", "th"))
_PRE = frozenset(("pre", "textarea"))
_BLANK = re.compile(r"[ \t\r\n\f]+")
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)
_TEXT_CODECS = ("gb", "big5", "iso-8859", "iso8859", "windows-", "cp", "shift", "euc", "koi8", "iso-2022-jp")


class _TextOfPage(HTMLParser):
    """Collects the text. `hidden`: open elements whose content is none; `breaks`: line ends to come."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.hidden: list[str] = []
        self.pre = self.breaks = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)
        if tag in _NO_TEXT:
            self.hidden.append(tag)
        elif tag in _CELL and self.pieces and not self.breaks:
            self._write("\t")
        self.pre += tag in _PRE

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)  # <svg/> and <br/> have no content

    def handle_endtag(self, tag: str) -> None:
        if tag in self.hidden:
            while self.hidden.pop() != tag:
                pass
        self.pre -= tag in _PRE and self.pre > 0
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if self.pre:
            self._write(data)
            return
        data = _BLANK.sub(" ", data)
        if self.breaks or not self.pieces or self.pieces[-1][-1:].isspace():
            data = data.lstrip(" ")
        if data:
            self._write(data)

    def _break(self, tag: str) -> None:
        if not self.hidden:
            self.breaks = max(self.breaks, 2 if tag in _PARAGRAPH else 1 if tag in _LINE else 0)

    def _write(self, data: str) -> None:
        if self.breaks and self.pieces:
            self.pieces[-1] = self.pieces[-1].rstrip(" \t")
            self.pieces.append("\n" * self.breaks)
        self.breaks = 0
        self.pieces.append(data)


def page_text(page: str) -> str:
    """The visible text of a page.

    Raises:
        ValueError: markup the parser gives up on.
    """
    parser = _TextOfPage()
    try:
        for start in range(0, len(page), FEED):
            parser.feed(page[start : start + FEED])
            if len(parser.rawdata) > MAX_MARKUP:
                raise ValueError(f"markup without end: {parser.rawdata[:40]}")
        # The rest is an unfinished tag (browsers drop it) or text. html.parser would finish it by trying
        # every "<" of it as a tag, in quadratic time.
        if parser.rawdata.startswith("<") and len(parser.rawdata) > 1000:
            raise ValueError(f"markup without end: {parser.rawdata[:40]}")
        parser.close()
    except AssertionError as error:  # how html.parser objects to broken declarations
        raise ValueError(str(error)) from None
    return "".join(parser.pieces).strip()


def decode_page(data: bytes) -> Decoded:
    """As `decode`, but an encoding that the page declares is believed when the bytes agree.

    Raises:
        NotText: binary content, or an encoding that is not recognised.
    """
    declared = _DECLARED.search(data[:4096])
    name = declared[1].decode("ascii").lower() if declared else ""
    if name.startswith(_TEXT_CODECS):
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            try:
                return Decoded(data.decode("gb18030" if name.startswith("gb") else name), name, 0)
            except (LookupError, UnicodeDecodeError):
                pass  # the declaration is wrong: look at the bytes
    return decode(data)


def read(file: SourceFile, settings: ReadSettings, opened: Opened) -> Iterator[Document | Dropped]:
    """One document a page."""
    data = bytearray()
    try:
        for chunk in opened.raw:
            data += chunk
            if len(data) > MAX_PAGE:
                yield Dropped(file.name, f"HTML page over {MAX_PAGE >> 20} MB", bytes=file.size)
                return
    except OSError as error:
        yield Dropped(file.name, "cannot be read", error.strerror or str(error), file.size)
        return
    try:
        decoded = decode_page(bytes(data))
        text = page_text(decoded.text)
    except UnknownEncoding as problem:
        yield Dropped(file.name, str(problem), "", file.size, with_file(ICONV, file.name))
        return
    except NotText as problem:
        yield Dropped(file.name, f"not text: {problem}", bytes=file.size)
        return
    except ValueError as error:
        yield Dropped(file.name, "broken HTML", str(error), file.size)
        return
    yield from opened.raw.problems()
    if text:
        group = settings.path_group(file)
        yield Document(text, file.name, 1, group, file.kind, decoded.encoding, 0, decoded.replaced)
    else:
        yield Dropped(file.name, EMPTY)
