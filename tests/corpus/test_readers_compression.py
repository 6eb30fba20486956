from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.readers import compression
from ownlm.corpus.readers.compression import Chunks
from tests.corpus.conftest import Read


def zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(data))


PACK: list[Callable[[bytes], bytes]] = [gzip.compress, lzma.compress, bz2.compress, zstd]
NAMES = {gzip.compress: "gz", lzma.compress: "xz", bz2.compress: "bz2", zstd: "zst"}
ROWS = b"".join(b'{"text": "row number %d, with some words"}\n' % i for i in range(5000))


@pytest.mark.parametrize("pack", PACK)
def test_rows_of_a_compressed_file(tmp_path: Path, read: Read, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / f"a.jsonl.{NAMES[pack]}").write_bytes(pack(ROWS))
    documents, dropped = read(tmp_path)
    assert len(documents) == 5000
    assert documents[4999].line == 5000
    assert dropped == []


@pytest.mark.parametrize("pack", PACK)
def test_members_one_after_the_other(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"one ") + pack(b"") + pack(b"two") + (b"\0" * 512 if pack in PACK[:2] else b"")
    assert chunks(tmp_path, packed) == (b"one two", "")


@pytest.mark.parametrize("pack", PACK)
def test_a_truncated_file_gives_what_was_read_and_says_so(
    tmp_path: Path, read: Read, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(ROWS)
    (tmp_path / f"a.jsonl.{NAMES[pack]}").write_bytes(packed[: len(packed) * 2 // 3])
    documents, dropped = read(tmp_path)
    assert all(d.text.startswith("row number") for d in documents)
    assert documents or pack is bz2.compress or pack is zstd  # these two give whole blocks only
    assert dropped[-1].reason.startswith("damaged or truncated")


@pytest.mark.parametrize("pack", PACK)
def test_damage_in_the_middle(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    packed = bytearray(pack(ROWS))
    packed[len(packed) // 2 :] = b"\xff" * (len(packed) - len(packed) // 2)
    assert chunks(tmp_path, bytes(packed))[1].startswith("damaged or truncated")


@pytest.mark.parametrize("kind", ["gzip", "xz"])
def test_what_lies_before_the_damage_is_read_and_the_rest_is_counted(tmp_path: Path, kind: str) -> None:
    text = random.Random(3).randbytes(300_000).hex().encode()  # packs to about its half
    if kind == "gzip":
        packer = zlib.compressobj(wbits=31)
        whole = packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)
    else:
        whole = lzma.compress(text)[:150_000]
    damage = b"\xff" * 150_000
    path = tmp_path / "packed"
    path.write_bytes(whole + damage)
    found = Chunks(SourceFile(str(path), path.stat().st_size, "text", kind))
    data = b"".join(found)
    assert text.startswith(data)
    assert len(data) > 0.4 * len(text)
    (problem,) = found.problems()
    assert len(damage) - compression.FEED <= problem.bytes <= len(damage) + 2 * compression.FEED


def test_other_bytes_behind_the_end_are_reported(tmp_path: Path) -> None:
    assert chunks(tmp_path, gzip.compress(b"text") + b"garbage") == (
        b"text",
        "damaged or truncated gzip: read up to there",
    )


@pytest.mark.parametrize("pack", PACK)
def test_expansion_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(compression, "RATIO_FROM", 1 << 20)
    monkeypatch.setattr(compression, "MAX_RATIO", 100)
    data, problem = chunks(tmp_path, pack(bytes(20 << 20)))
    assert "expands" in problem
    assert len(data) < 20 << 20


def test_memory_stays_small_when_a_bomb_is_read(tmp_path: Path) -> None:
    packed = gzip.compress(bytes(64 << 20))
    path = tmp_path / "a"
    path.write_bytes(packed)
    sizes = [len(chunk) for chunk in Chunks(SourceFile(str(path), len(packed), "text", "gzip"))]
    assert max(sizes) <= compression.CHUNK


def chunks(tmp_path: Path, packed: bytes) -> tuple[bytes, str]:
    """(what could be read, the problem) of a compressed file."""
    path = tmp_path / "packed"
    path.write_bytes(packed)
    found = Chunks(SourceFile(str(path), len(packed), "text", compression.compression_of(packed)))
    return b"".join(found), found.problem
