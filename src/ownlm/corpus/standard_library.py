"""Text that is on every machine: the source code of Python's standard library."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

# Left out: tests and data tables that would be a third of the bytes and teach little, old tools, and what is
# installed beside the library. `test/` and `tests/` also inside packages.
EXCLUDED = (
    "test/", "tests/", "idlelib/", "encodings/", "lib2to3/", "distutils/", "pydoc_data/", "ensurepip/", "turtledemo/",
    "site-packages/", "dist-packages/", "lib-dynload/", "__pycache__/", "config-*/", "*.so", "*.pyd", "*.txt", "*.gz",
)  # fmt: skip


class StandardLibrary(NamedTuple):
    """Arguments for `prepare`: whole top-level packages are one group, so that they are held out whole."""

    sources: list[str]
    exclude: list[str]
    group_by: str


def standard_library() -> StandardLibrary:
    """Where the source is on this machine, and how it is read."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return StandardLibrary([str(root)], list(EXCLUDED), f"re:/{re.escape(root.name)}/([^/]+)")
