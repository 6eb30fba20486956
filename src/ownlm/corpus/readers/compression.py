"""The bytes of a file or pipe, decompressed as a stream; limits on what a small file may expand to."""

from __future__ import annotations

import bz2
import itertools
import lzma
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Dropped
from ownlm.corpus.kinds import compression_of

CHUNK = 1 << 20  # bytes a chunk, at most
MAX_EXPANDED = 200 * 10**9  # bytes that one compressed file may give
MAX_RATIO = 1000  # expanded / compressed; text stays below 30, a bomb of zeros reaches 1000 and more
RATIO_FROM = 64 << 20  # expanded bytes from which the ratio counts: small files may well repeat themselves
LZMA_MEMORY = 1 << 29  # xz -9 needs 65 MB
ZSTD_WINDOW = 1 << 27  # zstd --ultra -22
ZSTD_FEED = 1 << 12  # bytes fed at a time: what comes out of them is at most 32,000 times as much
FEED = 1 << 14  # of the others: what was fed together with a damaged place is lost


class _Decompressor(Protocol):
    """One member of a compressed file, the interface of bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """gzip members behind that interface."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.eof, self.needs_input, self.unused_data = False, True, b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.eof, self.unused_data = self._inner.eof, self._inner.unused_data
        self.needs_input = not self._inner.unconsumed_tail and len(out) < max_length
        return out


class _Zstd:
    """zstd frames behind that interface; what one call gives is bounded by how little it is fed."""

    def __init__(self) -> None:
        import zstandard

        self._inner: Any = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        self._error = zstandard.ZstdError
        self.eof, self.needs_input, self.unused_data = False, True, b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            out: bytes = self._inner.decompress(data)
        except self._error as error:
            raise OSError(str(error)) from None
        self.eof, self.unused_data = self._inner.eof, self._inner.unused_data
        return out


def _decompressor(compression: str) -> _Decompressor:
    if compression == "gzip":
        return _Zlib()
    if compression == "bz2":
        return bz2.BZ2Decompressor()
    if compression == "zstd":
        return _Zstd()
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)


class Chunks:
    """The decompressed bytes of one source, iterated once.

    A damaged file gives what could be read; `problem` then says what is wrong.

    Attributes:
        position: bytes consumed of the file on disk.
        problem: "" or why reading stopped before the end.
        detail: the decompressor's own words.
    """

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.position = 0
        self.problem = self.detail = ""

    def __iter__(self) -> Iterator[bytes]:
        if self.file.path == "-":
            yield from self._expand(sys.stdin.buffer)
        else:
            with Path(self.file.path).open("rb") as stream:
                yield from self._expand(stream)

    def problems(self) -> Iterator[Dropped]:
        """The problem, if there is one, once the iteration is over."""
        if self.problem:
            left = max(0, self.file.size - self.position)
            yield Dropped(self.file.name, self.problem, self.detail, left)

    def _raw(self, stream: BinaryIO, size: int) -> Iterator[bytes]:
        while data := stream.read(size):
            self.position += len(data)
            yield data

    def _expand(self, stream: BinaryIO) -> Iterator[bytes]:
        compression = self.file.compression
        first = b""
        if self.file.stream:
            first = next(self._raw(stream, ZSTD_FEED), b"")
            compression = compression_of(first)
        raw = self._raw(
            stream, CHUNK if compression is None else ZSTD_FEED if compression == "zstd" else FEED
        )
        raw = itertools.chain([first], raw) if first else raw
        if compression is None:
            yield from raw
            return
        expanded = 0
        for block in self._members(raw, compression):
            expanded += len(block)
            if expanded > MAX_EXPANDED or expanded > max(RATIO_FROM, MAX_RATIO * self.position):
                self.problem = f"{compression} expands {MAX_RATIO}-fold or over 200 GB: read up to there"
                return
            yield block

    def _members(self, raw: Iterator[bytes], compression: str) -> Iterator[bytes]:
        """Members one after the other, as `cat a.gz b.gz` makes them; zero bytes between them are padding."""
        member: _Decompressor | None = None
        for data in raw:
            while True:
                if member is None:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    member = _decompressor(compression)
                try:
                    out = member.decompress(data, CHUNK)
                except (zlib.error, lzma.LZMAError, OSError) as error:
                    self.position -= len(data)  # they gave nothing
                    self._stop(compression, str(error))
                    return
                if out:
                    yield out
                data = member.unused_data if member.eof else b""
                if member.eof:
                    member = None
                elif member.needs_input:
                    break
        if member is not None:
            self._stop(compression, "ends in the middle")

    def _stop(self, compression: str, detail: str) -> None:
        self.problem, self.detail = f"damaged or truncated {compression}: read up to there", detail
