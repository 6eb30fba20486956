"""What the tests of the hub share: names of files, and the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.hub.state import Hub

FETCHED = {
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "LICENSE"
}  # fmt: skip
WRITTEN = FETCHED | {"ownlm.json", "SHA256SUMS"}


def names(folder: Path) -> set[str]:
    """Of what lies in a folder."""
    return {path.name for path in folder.iterdir()}


def names_below(folder: Path) -> set[str]:
    """Of what lies in a folder and in the folders in it."""
    return {path.name for path in folder.rglob("*")}


def no_bytes_kept(tmp_path: Path) -> bool:
    """Nothing but locks lies in the cache."""
    return not any(p.is_file() and p.suffix != ".lock" for p in (tmp_path / "home").rglob("*"))


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    """What a user sets; this process reads it once, so a new one is started."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), **more}


def command(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """`ownlm` in a process of its own."""
    return subprocess.run([sys.executable, "-m", "ownlm", *words], capture_output=True, text=True, **options)  # type: ignore[call-overload]
