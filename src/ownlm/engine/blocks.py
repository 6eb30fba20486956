"""The pool of cache blocks: who uses them, which of them hold a prefix that others can share, which go first.

A full block is known by the hash of its tokens and of the block before it, so equal keys mean equal prefixes. Blocks
that nobody uses stay until their memory is needed, the longest unused first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from ownlm.engine.backend import BLOCK


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a full block holds: its tokens, after what.

    Args:
        key: hash of all below.
        before: key of the block before it; of the first block `root_key`.
        tokens: int32 [64] as bytes.
        adapter: whose weights computed it.
    """

    key: bytes
    before: bytes
    tokens: bytes
    adapter: int


def root_key(adapter: int) -> bytes:
    """What the first block of a sequence comes after; adapters compute other keys and values from the same tokens."""
    return blake2b(f"adapter {adapter}".encode(), digest_size=16).digest()


def chained(before: bytes, tokens: npt.NDArray[np.int32], adapter: int) -> Prefix:
    """The prefix that a block of tokens [64] makes after another."""
    data = tokens.tobytes()
    return Prefix(blake2b(before + data, digest_size=16).digest(), before, data, adapter)


def blocks_for(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // BLOCK)


class BlockPool:
    """Numbers of cache blocks, counted by their users.

    Args:
        count: blocks of the cache.
        sharing: whether full blocks are kept for sequences that begin with the same tokens.
    """

    def __init__(self, count: int, *, sharing: bool = True) -> None:
        self.count, self.sharing = count, sharing
        self._users = [0] * count
        self._free = deque(range(count))
        self._idle: OrderedDict[int, None] = OrderedDict()  # shareable, without users; the first goes first
        self._block_of: dict[bytes, int] = {}
        self._prefix_of: dict[int, Prefix] = {}

    @property
    def available(self) -> int:
        """Blocks that `take` can give."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks with users."""
        return self.count - self.available

    def take(self) -> int:
        """A block for one user; what it held before is forgotten.

        Raises:
            IndexError: none is available.
        """
        if self._free:
            block = self._free.popleft()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        else:
            raise IndexError("no cache block is available")
        self._users[block] = 1
        return block

    def share(self, blocks: Sequence[int]) -> None:
        """One more user of these blocks."""
        for block in blocks:
            self._idle.pop(block, None)
            self._users[block] += 1

    def shared(self, block: int) -> bool:
        """Whether it has several users, so that nobody may write to it."""
        return self._users[block] > 1

    def give_back(self, blocks: Sequence[int], *, damaged: bool = False) -> None:
        """One user less of a sequence's blocks, in order.

        Args:
            damaged: they hold numbers that are not finite and must not be found again.
        """
        for block in reversed(blocks):  # the end of a prefix goes before its beginning
            if damaged:
                self._forget(block)
            self._users[block] -= 1
            if self._users[block]:
                continue
            if block in self._prefix_of:
                self._idle[block] = None
            else:
                self._free.append(block)

    def keep(self, block: int, prefix: Prefix) -> None:
        """Let others find a block that was filled; of two blocks with the same content the first one is found."""
        if self.sharing and prefix.key not in self._block_of:
            self._block_of[prefix.key] = block
            self._prefix_of[block] = prefix

    def find(self, prefix: Prefix) -> int | None:
        """The block that holds this prefix; compared token by token, as a hash alone proves nothing."""
        block = self._block_of.get(prefix.key)
        return block if block is not None and self._prefix_of[block] == prefix else None

    def idle_among(self, blocks: Sequence[int]) -> int:
        """How many of these blocks have no user: sharing them makes fewer available."""
        return sum(block in self._idle for block in blocks)

    def forget_adapter(self, adapter: int) -> None:
        """Nothing that these weights computed is found again."""
        for block in [b for b, prefix in self._prefix_of.items() if prefix.adapter == adapter]:
            self._forget(block)
            if block in self._idle:
                del self._idle[block]
                self._free.append(block)

    def _forget(self, block: int) -> None:
        prefix = self._prefix_of.pop(block, None)
        if prefix is not None:
            del self._block_of[prefix.key]
