"""JSON Lines read without copying lines give what each line alone gives."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ownlm.corpus.discover import SourceFile
from ownlm.corpus.documents import Document, Dropped
from ownlm.corpus.readers import ReadSettings
from ownlm.corpus.readers.blocks import FIRST_BLOCKS, Block, lines
from ownlm.corpus.readers.rows import Rows, parse_lines

FILE = SourceFile("rows.jsonl", 0, "jsonl")
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=2), max_leaves=4
)
ROWS = st.dictionaries(st.sampled_from(["text", "other"]), VALUES, max_size=2).map(json.dumps)
PIECES = st.sampled_from(
    [
        '{"text":',
        '"春"',
        "}",
        "{",
        "[",
        "]",
        ",",
        "1",
        " ",
        "\t",
        "\r",
        "\u2028",
        '{"text": "a"}',
        "nul",
        "NaN",
        '"',
        "\\",
    ]
)
LINES = st.lists(
    st.one_of(ROWS, ROWS.map(lambda row: f" {row}\r"), st.lists(PIECES, max_size=4).map("".join)), max_size=8
)


def one_by_one(text: str) -> list[Document | Dropped]:
    """What the lines mean, each parsed alone."""
    rows = Rows(FILE, ReadSettings())
    found: list[Document | Dropped] = []
    for number, line in enumerate(text.split("\n"), 5):
        if not line or line.isspace():
            continue
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            found.append(rows.dropped(number, "not JSON", str(error)))
        else:
            found.append(rows.document(value, number, "utf-8"))
    return found


@given(LINES)
@example(['{"text": ["a",', '"b"]}'])
@example(['{"text": [{"text": "a"}', '{"text": "b"}]}', '{"text": "c"},{"text": "d"}'])
@example(['{"text": "a"} {"text": "b"}'])
@example(['{"text": "a', 'b"}'])
@example(["[" * 100_000, '{"text": "a"}'])
@settings(max_examples=300, deadline=None)
def test_each_line_is_what_it_is_alone(found: list[str]) -> None:
    text = "\n".join(found)
    block = Block(5, 0, text.encode())
    assert list(parse_lines(FILE, block, "utf-8", ReadSettings())) == one_by_one(text)


def test_the_first_blocks_are_small_and_nothing_is_lost_between_blocks() -> None:
    size = 4000
    data = b"".join(b"%06d\n" % number for number in range(4000))
    chunks = [data[start : start + 100] for start in range(0, len(data), 100)]
    blocks = list(lines(chunks, size))
    assert b"".join(block.data for block in blocks) == data
    for block in blocks:
        assert block.data.startswith(b"%06d\n" % (block.line - 1))
        assert block.data.endswith(b"\n")
    sizes = [len(block.data) for block in blocks[:-1]]
    assert max(sizes[:FIRST_BLOCKS]) < size / 2 < min(sizes[FIRST_BLOCKS:])


@given(st.integers(1, 40), st.integers(4, 60), st.lists(st.integers(0, 30), max_size=30))
@settings(max_examples=100, deadline=None)
def test_blocks_of_any_size_hold_every_byte_once(chunk: int, size: int, lengths: list[int]) -> None:
    data = b"\n".join(b"x" * length for length in lengths)
    chunks = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    assert b"".join(block.data for block in lines(chunks, size)) == data
