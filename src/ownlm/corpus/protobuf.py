"""Protobuf messages as (field number, value) pairs: as much of the wire format as a `tokenizer.model` needs.

The format: protobuf.dev/programming-guides/encoding. Every length is checked against what is left of the file before
anything is cut out of it.
"""

from __future__ import annotations

from collections.abc import Iterator


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message; groups do not occur. Raises ValueError where it does not hold together."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        wire = key & 7
        if wire == 0:
            value: int | bytes
            value, at = varint(data, at)
        elif wire in (1, 2, 5):
            size = {1: 8, 5: 4}.get(wire, 0)
            if wire == 2:
                size, at = varint(data, at)
            if size > len(data) - at:
                raise ValueError(f"a field of {size:,} bytes, {len(data) - at:,} are left")
            value = data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire} at byte {at:,}")
        yield key >> 3, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that starts at a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number of more than 64 bits before byte {at:,}")


def message(value: int | bytes) -> bytes:
    """A value that has to be a text or a message."""
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value
