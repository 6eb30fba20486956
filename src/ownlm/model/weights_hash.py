"""The hash of a model folder's weights: whether they are still those that something was made for."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import torch

from ownlm.model.stored import StoredWeights


def weights_sha256(folder: Path) -> str:
    """SHA-256 over names and bytes of the stored weights, in the order of their names, whatever files they lie in.

    Raises:
        UsageError: no weights there. Refused: damaged.
    """
    with StoredWeights(folder) as stored:
        files = sorted({entry.file for entry in stored.entries.values()})
    states = ((file, file.stat()) for file in files)
    return _hash(folder, tuple((file, state.st_size, state.st_mtime_ns) for file, state in states))


@lru_cache(maxsize=16)
def _hash(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """`files`: path, size and time of change, so that what was changed is read again."""
    digest = hashlib.sha256()
    with StoredWeights(folder) as stored:
        memory = torch.empty(stored.largest(), dtype=torch.uint8)
        for name in sorted(stored.entries):
            digest.update(name.encode())
            tensor = stored.read(name, memory)
            if tensor.numel():
                digest.update(memoryview(tensor.view(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()
