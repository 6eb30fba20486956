"""A source opened: decompressed, recognised, as UTF-8 chunks or text; what went wrong at its end."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator

from ownlm.corpus.discover import ICONV, SourceFile
from ownlm.corpus.documents import Dropped
from ownlm.corpus.encodings import NotText, UnknownEncoding, Utf8Stream
from ownlm.corpus.kinds import with_file
from ownlm.corpus.readers.compression import Chunks


class Opened:
    """The UTF-8 chunks of one source, iterated once; never raises for what the file holds.

    Attributes:
        broken: whether `text` put U+FFFD for bytes.
    """

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.raw = Chunks(file)
        self._stream = Utf8Stream(self.raw)
        self.broken = self._any = False
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
            for chunk in self._stream:
                self._any |= bool(chunk)
                yield chunk
        except UnknownEncoding as problem:
            self._drop(str(problem), do=self._iconv())
        except NotText as problem:
            self._drop(f"not text: {problem}")
        except OSError as error:
            self._drop("cannot be read", error.strerror or str(error))

    def _iconv(self) -> str:
        if self.file.path == "-":
            return "iconv -f ENCODING -t UTF-8 FILE | ownlm prepare - …"
        return with_file(ICONV, self.file.name)

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
        """What is to be reported once the iteration is over: damage, content that is not text, no content."""
        yield from self._dropped
        if not (self._any or self._dropped or self.raw.problem):
            yield Dropped(self.file.name, "empty text")
        yield from self.raw.problems()
