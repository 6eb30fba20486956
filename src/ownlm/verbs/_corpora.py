"""The corpora that runs were trained on, as far as they are still there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.shards import MANIFEST, SPLITS, Corpus


class Library:
    """The corpora of runs, each opened once, found by hash: at their old place, beside the run, or at another run's."""

    def __init__(self, runs: Iterable[tuple[Path, dict[str, Any]]]) -> None:
        self._folders: dict[str, list[Path]] = {}
        for path, data in runs:
            self._folders.setdefault(str(data.get("hash")), []).extend(_candidates(path, data))
        self._open: dict[str, Corpus | None] = {}

    def find(self, run: Path, data: dict[str, Any]) -> Corpus | None:
        """The corpus with the hash that a run names; None when it is not there any more."""
        wanted = str(data.get("hash"))
        if self._open.get(wanted) is None:
            folders = [*_candidates(run, data), *self._folders.get(wanted, [])]
            self._open[wanted] = next((c for c in map(_opened, folders) if c and c.hash == wanted), None)
        return self._open[wanted]


def _candidates(run: Path, data: dict[str, Any]) -> list[Path]:
    written = data.get("corpus")
    if not written:
        return []
    return [Path(written), run.parent / Path(written).name]


def _opened(folder: Path) -> Corpus | None:
    if not (folder / MANIFEST).is_file():
        return None
    try:
        corpus = Corpus.open(folder)
        for name in SPLITS:
            corpus.split(name)  # looks whether its shards are there
    except (UsageError, Refused):
        return None
    return corpus
