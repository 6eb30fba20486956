"""The pool of cache blocks: found by what they hold, kept until their memory is needed, the end of a text first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.engine.backend import BLOCK
from ownlm.engine.blocks import BlockPool, Prefix, chained, root_key


def prefixes(*texts: int, adapter: int = 0) -> list[Prefix]:
    """What the blocks of a text hold whose blocks are filled with one number each."""
    found: list[Prefix] = []
    for number in texts:
        before = found[-1].key if found else root_key(adapter)
        found.append(chained(before, np.full(BLOCK, number, np.int32), adapter))
    return found


def filled(pool: BlockPool, text: list[Prefix]) -> list[int]:
    blocks = [pool.take() for _ in text]
    for block, prefix in zip(blocks, text):
        pool.keep(block, prefix)
    return blocks


def test_a_block_is_found_by_its_tokens_and_all_before_them() -> None:
    pool = BlockPool(8)
    text = prefixes(1, 2, 3)
    blocks = filled(pool, text)
    assert [pool.find(prefix) for prefix in text] == blocks
    assert [pool.find(prefix) for prefix in prefixes(9, 2, 3)] == [None] * 3
    assert pool.find(prefixes(1, adapter=1)[0]) is None
    other = np.full(BLOCK, 4, np.int32).tobytes()
    assert pool.find(dataclasses.replace(text[1], tokens=other)) is None, "the same hash is no proof"


def test_what_nobody_uses_stays_until_it_is_needed_and_the_end_of_a_text_goes_first() -> None:
    pool = BlockPool(4)
    text = prefixes(1, 2, 3)
    blocks = filled(pool, text)
    pool.give_back(blocks)
    assert pool.available == 4 and pool.used == 0
    assert [pool.find(prefix) for prefix in text] == blocks
    taken = [pool.take(), pool.take()]
    assert taken[1] == blocks[2], "the block that held nothing first, then the end of the text"
    assert [pool.find(prefix) for prefix in text] == [*blocks[:2], None]
    pool.share(blocks[:1])
    assert [pool.take() for _ in range(1)] == [blocks[1]]
    with pytest.raises(IndexError):
        pool.take()
    assert pool.find(text[0]) == blocks[0]


def test_damaged_blocks_and_those_of_a_gone_adapter_are_not_found_again() -> None:
    pool = BlockPool(6)
    text, theirs = prefixes(1, 2), prefixes(1, 2, adapter=3)
    blocks, others = filled(pool, text), filled(pool, theirs)
    pool.give_back(blocks, damaged=True)
    pool.give_back(others[1:])
    pool.forget_adapter(3)
    assert [pool.find(prefix) for prefix in (*text, *theirs)] == [None] * 4
    assert pool.used == 1
    pool.give_back(others[:1])
    assert sorted(pool.take() for _ in range(6)) == list(range(6))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=60), st.randoms(use_true_random=False))
def test_no_block_has_two_writers_and_none_is_lost(actions: list[int], random: object) -> None:
    pool, running = BlockPool(9), []
    for action in actions:
        if action < 3:  # a text of up to three blocks, some of them there already
            text, blocks = prefixes(*[random.randrange(2) for _ in range(3)]), []  # type: ignore[attr-defined]
            for prefix in text:
                found = pool.find(prefix) if len(blocks) == text.index(prefix) else None
                if found is not None:
                    pool.share([found])
                    blocks.append(found)
                elif pool.available:
                    blocks.append(pool.take())
                    pool.keep(blocks[-1], prefix)
            running.append(blocks)
        elif running:
            pool.give_back(running.pop(random.randrange(len(running))))  # type: ignore[attr-defined]
        held = {block for blocks in running for block in blocks}
        assert pool.used == len(held)
        assert all(pool.shared(b) == (sum(b in blocks for blocks in running) > 1) for b in held)
    for blocks in running:
        pool.give_back(blocks)
    assert sorted(pool.take() for _ in range(9)) == list(range(9))
