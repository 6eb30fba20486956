"""A source opened: decompressed, recognised, as UTF-8 chunks or text; what went wrong at its end."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Dropped
from ownlm.corpus.encodings import NotText, Utf8Stream
from ownlm.corpus.readers.compression import Chunks

NOT_TEXT = "not text"


class Opened:
    """The UTF-8 chunks of one source, iterated once; never raises for what the file holds.

    Attributes:
        broken: whether `text` put U+FFFD for bytes.
    """

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.raw = Chunks(file)
        self._stream = Utf8Stream(self.raw)
        self.broken = False
        self._dropped: list[Dropped] = []

    @property
    def position(self) -> int:
        """Bytes of the file on disk consumed so far."""
        return self.raw.position

    @property
    def encoding(self) -> str:
        """See `Utf8Stream`."""
        return self._stream.encoding

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except NotText as problem:
            self._drop(f"{NOT_TEXT}: {problem}", do=encoding_help(str(problem)))
        except OSError as error:
            self._drop("cannot be read", error.strerror or str(error))

    def _drop(self, reason: str, detail: str = "", do: str = "") -> None:
        self._dropped.append(Dropped(self.file.name, reason, detail, self.file.size, do))

    def text(self) -> Iterator[str]:
        """The same as strings; broken bytes become U+FFFD."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        for chunk, last in itertools.chain(((c, False) for c in self), [(b"", True)]):
            self.broken |= self.encoding != "utf-8"
            try:
                yield decoder.decode(chunk, last)
            except UnicodeDecodeError:
                self.broken, decoder.errors = True, "replace"
                yield decoder.decode(chunk, last)

    def problems(self) -> Iterator[Dropped]:
        """What is to be reported once the iteration is over: damage, content that is not text."""
        yield from self._dropped
        if self.raw.problem:
            left = max(0, self.file.size - self.position)
            yield Dropped(self.file.name, self.raw.problem, self.raw.detail, left)


def encoding_help(problem: str) -> str:
    """The command that reads a file in an encoding that is not recognised."""
    return "iconv -f ENCODING -t UTF-8 FILE" if "encoding" in problem else ""
