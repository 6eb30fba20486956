"""Finding run folders: the newest one below a folder, all of them, or the one that a name stands for.

The file is not called `runs.py`: importing it would replace the verb `ownlm.runs` by a module.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ownlm.console import output
from ownlm.console.errors import Refused, UsageError, did_you_mean

RUN_FILE, ADAPTER_FILE = "run.json", "adapter_config.json"
FORMAT = "ownlm run 1"
MAX_DEPTH = 4  # below the folder that is searched
MAX_FOLDERS = 20_000  # a home folder must not be walked for minutes
MAX_RUN_FILE_BYTES = 64 * 2**20
SKIPPED = frozenset({"checkpoints", "node_modules", "__pycache__", "site-packages", "venv"})


@dataclass(frozen=True)
class Run:
    """One run folder and what its `run.json` says.

    `problem` is empty, or says why `run.json` could not be read (`facts` is then empty).
    """

    path: Path
    facts: dict[str, Any]
    created: float  # seconds since 1970, for sorting
    problem: str = ""


def find_run(name: str | os.PathLike[str]) -> Path:
    """The folder that a model argument stands for: a path, or `last` for the newest run below this folder.

    A folder without `run.json` but with `config.json` (a Hugging Face model) or an adapter is accepted too.

    Raises:
        UsageError: there is no such folder; the closest run is named.
        Refused: the folder is there but holds no model.
    """
    path = Path(name)
    if str(name) == "last" and not path.is_dir():
        return _newest()
    if path.is_file() and path.name in (RUN_FILE, "config.json", ADAPTER_FILE):
        path = path.parent
    if not path.exists():
        known = [str(run.path) for run in list_runs(Path())]
        raise UsageError(
            f"no such run folder.{did_you_mean(str(path), known)}",
            where=path,
            do="ownlm runs" if known else "ownlm quickstart, or: ownlm pretrain CORPUS -o RUN",
        )
    files = (RUN_FILE, "config.json", ADAPTER_FILE)
    if not path.is_dir() or not any((path / file).is_file() for file in files):
        do = f"ownlm pretrain {path} -o RUN" if (path / "corpus.json").is_file() else "ownlm runs"
        what = "a corpus, not a run." if (path / "corpus.json").is_file() else "not a run folder."
        raise Refused(what, where=path, why="A run folder holds config.json and model.safetensors.", do=do)
    return path


def holds_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / ADAPTER_FILE).is_file() and not any(folder.glob("model*.safetensors"))


def _newest() -> Path:
    runs = [run for run in list_runs(Path()) if not run.facts.get("exported")]
    if not runs:
        raise UsageError(
            f"no run found below {Path().resolve()} ({MAX_DEPTH} folders deep).",
            where="last",
            do="ownlm quickstart, or: ownlm pretrain CORPUS -o RUN",
        )
    return runs[0].path


def list_runs(folder: Path) -> list[Run]:
    """The runs in and below a folder, newest first (by `created` in `run.json`, else the file's time)."""
    found = [read_run(path) for path in _run_folders(folder)]
    return sorted(found, key=lambda run: (-run.created, str(run.path)))


def read_run(folder: Path) -> Run:
    """Read `run.json` of a folder; one that cannot be read is reported in `problem`, never left out."""
    file = folder / RUN_FILE
    try:
        created = file.stat().st_mtime
        if file.stat().st_size > MAX_RUN_FILE_BYTES:
            return Run(folder, {}, created, f"{RUN_FILE} is larger than {MAX_RUN_FILE_BYTES >> 20} MiB")
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return Run(folder, {}, 0.0, f"{RUN_FILE} cannot be read: {error}")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return Run(folder, {}, created, f'{RUN_FILE} does not say "format": "{FORMAT}"')
    with contextlib.suppress(ValueError):  # without a date, the file's own time stands
        created = datetime.fromisoformat(str(facts.get("created"))).timestamp()
    return Run(folder, facts, created)


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders that hold `run.json`, breadth first, bounded in depth and number; links are not followed."""
    level, seen = [folder], 0
    for depth in range(MAX_DEPTH + 1):
        below: list[Path] = []
        for current in level:
            seen += 1
            if seen > MAX_FOLDERS:
                output.warn(f"{folder}: looked into {MAX_FOLDERS:,} folders for runs, not into the others.")
                return
            try:
                entries = sorted(os.scandir(current), key=lambda entry: entry.name)
            except OSError:
                continue  # a folder that may not be read holds no run that could be used
            if any(entry.name == RUN_FILE and entry.is_file() for entry in entries):
                yield current
            if depth < MAX_DEPTH:
                below += [current / entry.name for entry in entries if _is_searched(entry)]
        level = below


def _is_searched(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".")
    return not hidden and entry.name not in SKIPPED and entry.is_dir(follow_symlinks=False)
