"""One random stream a purpose: every seed in the package is derived from (seed, purpose, index)."""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed that depends on all three arguments and on nothing else.

    The same on every machine and Python version (SHA-256, not `hash`).
    """
    digest = hashlib.sha256(f"{seed}\x00{purpose}\x00{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
