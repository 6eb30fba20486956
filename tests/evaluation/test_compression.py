"""The baselines are what gzip and xz would write into a file."""

from __future__ import annotations

import gzip
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.evaluation.compression import GZIP, XZ, Compression, bits_per_byte

WORDS = ["the river ", "春眠不觉晓", "\n", "fox " * 50, "x = 1\n", "\x00\xff"]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=30), min_size=1, max_size=40))
@settings(max_examples=15, deadline=None)
def test_the_bytes_are_those_of_one_file_however_they_are_fed(pieces: list[str]) -> None:
    data = [piece.encode("utf-8", "replace") for piece in ["a", *pieces]]
    whole = b"".join(data)
    compression = Compression()
    for piece in data:
        compression.feed(piece)
    found = compression.bits_per_byte()
    assert found == {
        GZIP: 8 * len(gzip.compress(whole, 9)) / len(whole),
        XZ: 8 * len(lzma.compress(whole, preset=9)) / len(whole),
    }
    assert compression.bytes == len(whole)


def test_a_long_text_that_repeats_itself_far_away() -> None:
    lines = [f"{number * 7919 % 10007} and {number}\n" for number in range(8000)]
    data = "".join(lines + lines).encode()
    found = bits_per_byte(data)
    assert found[GZIP] * len(data) / 8 == pytest.approx(len(gzip.compress(data, 9)), abs=0.01)
    assert found[XZ] * len(data) / 8 == pytest.approx(len(lzma.compress(data, preset=9)), abs=0.01)
    assert found[XZ] < 0.7 * found[GZIP]  # only xz sees as far back as the first copy
