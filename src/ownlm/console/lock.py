"""One process at a time in a folder: a lock that the system takes back when the process ends, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ownlm.console.errors import UsageError

LOCK = ".lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which must exist.

    Raises:
        UsageError: another process holds it.
    """
    with (folder / LOCK).open("a+b") as file:
        try:
            _lock(file)
        except OSError:
            raise UsageError(
                "another process is writing to this folder.", where=folder, do="wait for it, or another -o"
            ) from None
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
