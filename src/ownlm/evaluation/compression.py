"""The baselines every bits-per-byte figure stands beside: what gzip and xz make of the same text."""

from __future__ import annotations

import lzma
import zlib

GZIP, XZ = "gzip -9", "xz -9"


class Compression:
    """Counts the compressed bytes of text that is fed piece by piece; holds no more than the compressors do.

    All pieces go into one stream, so a compressor sees the earlier documents when it reads a later one (a
    model starts every document anew). The containers' 18 (gzip) and about 60 (xz) bytes count too.
    """

    def __init__(self) -> None:
        self.bytes = self._gzip_bytes = self._xz_bytes = 0
        self._gzip = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: gzip container, largest window
        self._xz = lzma.LZMACompressor(preset=9)

    def feed(self, data: bytes) -> None:
        """Add the UTF-8 bytes of a document."""
        self.bytes += len(data)
        self._gzip_bytes += len(self._gzip.compress(data))
        self._xz_bytes += len(self._xz.compress(data))

    def bits_per_byte(self) -> dict[str, float]:
        """{"gzip -9": …, "xz -9": …}; ends the streams. At least one byte was fed."""
        self._gzip_bytes += len(self._gzip.flush())
        self._xz_bytes += len(self._xz.flush())
        return {GZIP: 8 * self._gzip_bytes / self.bytes, XZ: 8 * self._xz_bytes / self.bytes}


def bits_per_byte(data: bytes) -> dict[str, float]:
    """Bits per byte that `gzip -9` and `xz -9` need for these bytes (at least one)."""
    compression = Compression()
    compression.feed(data)
    return compression.bits_per_byte()
