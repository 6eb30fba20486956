"""Text of any size cut into blocks at line ends or paragraph ends, always at the same places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BLOCK = 8 << 20  # bytes of a block, and of a piece of a giant text
FIRST_BLOCKS = 8  # blocks of lines that are a quarter as large: work begins sooner, small files divide evenly
MAX_ROW = 64 << 20  # bytes of one row (JSON line, CSV cell, JSON value): longer ones are dropped


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole lines, or a piece, of a text.

    Attributes:
        line: number of its first line in the source, from 1.
        part: 0 when it is the whole text, else 1, 2, …
        data: UTF-8 (bytes of a UTF-8 source as they are, broken ones included).
        too_long: instead of data, a line that is longer than `MAX_ROW`.
    """

    line: int
    part: int
    data: bytes
    too_long: bool = False


def decode_block(data: bytes, encoding: str) -> tuple[str, int]:
    """(text, number of U+FFFD put for broken bytes) of a block whose source was in `encoding`."""
    try:
        text = data.decode("utf-8")
        return text, 0 if encoding == "utf-8" else text.count("\ufffd")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        return text, text.count("\ufffd") - data.count(b"\xef\xbf\xbd")


def lines(chunks: Iterable[bytes], size: int = BLOCK, longest: int = MAX_ROW) -> Iterator[Block]:
    """Blocks of whole lines, about `size` bytes each; longer lines make longer blocks up to `longest`.

    The first FIRST_BLOCKS blocks have about a quarter of `size`.
    """
    size, full, blocks = size // 4, size, 0
    line, total, enough, skipping = 1, 0, size, False
    held: list[bytes] = []
    for chunk in chunks:
        if skipping:
            _, end, chunk = chunk.partition(b"\n")
            if not end:
                continue
            line, skipping = line + 1, False
        held.append(chunk)
        total += len(chunk)
        if total < enough:
            continue
        data = b"".join(held)
        cut = data.rfind(b"\n") + 1
        if cut:
            yield Block(line, 0, data[:cut])
            line += data.count(b"\n", 0, cut)
            blocks += 1
            size = size if blocks < FIRST_BLOCKS else full
        held, total = [data[cut:]], len(data) - cut
        enough = max(size, 2 * total)  # looking again at every chunk of one long line would be quadratic
        if total > longest:
            yield Block(line, 0, b"", too_long=True)
            held, total, enough, skipping = [], 0, size, True
    if total:
        yield Block(line, 0, b"".join(held))


def paragraphs(chunks: Iterable[bytes], size: int = BLOCK) -> Iterator[Block]:
    """Pieces of at most `size` bytes, cut after a blank line, else a line, else a space."""
    line, part, total = 1, 0, 0
    waiting: list[bytes] = []
    for chunk in chunks:
        waiting.append(chunk)
        total += len(chunk)
        if total <= size:
            continue
        held = b"".join(waiting)
        while len(held) > size:
            cut = _piece_end(held, size)
            part += 1
            yield Block(line, part, held[:cut])
            line += held.count(b"\n", 0, cut)
            held = held[cut:]
        waiting, total = [held], len(held)
    held = b"".join(waiting)
    if held:
        yield Block(line, part + 1 if part else 0, held)


def _piece_end(data: bytes, size: int) -> int:
    """Where to cut `data` so that the piece in front has at most `size` bytes and at least half of that."""
    for mark in (b"\n\n", b"\r\n\r\n", b"\n", b" "):
        end = data.rfind(mark, size // 2, size)
        if end >= 0:
            return end + len(mark)
    end = size
    while end > size - 4 and 0x80 <= data[end] < 0xC0:  # not inside a UTF-8 character
        end -= 1
    return end
