"""The output folder: who may write into it, and putting a finished corpus in place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.discover import SourceFile
from ownlm.corpus.settings import PrepareSettings
from ownlm.corpus.shards import FORMAT, MANIFEST

WORK = ".work"  # staged files of a corpus in the making, below its folder
COMMAND = "command.json"  # in WORK: the settings it is made with
INPUTS = "inputs.json"  # in the corpus: names, sizes and times of the sources, to recognise it
PATTERNS = (MANIFEST, INPUTS, "sources.jsonl", "dropped.jsonl", "tokenizer.json", "tokenizer_config.json")
SHARD_PATTERNS = ("train-*.bin", "validation-*.bin", "train-*.index.npy", "validation-*.index.npy")


def inputs_hash(files: Iterable[SourceFile]) -> str | None:
    """Hash of the names, sizes and times of the sources; None when one of them is a stream."""
    digest = hashlib.sha256()
    for file in files:
        if file.stream:
            return None
        status = Path(file.path).stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def claim(settings: PrepareSettings, inputs: str | None) -> bool:
    """Take the output folder for these settings.

    Args:
        settings: what is to be made.
        inputs: see `inputs_hash`.

    Returns:
        True when exactly this corpus is already there, finished.

    Raises:
        UsageError: the output is a file.
        Refused: the folder holds something else, or a corpus of other settings or sources.
    """
    folder = settings.output
    if folder.exists() and not folder.is_dir():
        raise UsageError("is a file; the corpus is a folder.", where=folder, do="-o with another name")
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    work = folder / WORK
    if MANIFEST in names:
        if _finished(settings, inputs):
            shutil.rmtree(work, ignore_errors=True)
            return True
    elif WORK in names and (work / COMMAND).is_file():
        _same_command(settings, work)
    elif names:
        raise Refused(
            f"holds other files ({', '.join(sorted(names)[:3])}{', …' if len(names) > 3 else ''}).",
            where=folder,
            why="A corpus gets a folder of its own; nothing was changed.",
            do=f"-o {folder}/corpus",
        )
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        do = "-o with a folder that you may write to"
        raise UsageError(f"cannot be made: {error.strerror}.", where=folder, do=do) from None
    command = work / f"{COMMAND}.partial"
    command.write_text(json.dumps(settings.content(), ensure_ascii=False), encoding="utf-8")
    command.replace(work / COMMAND)
    return False


def release(settings: PrepareSettings) -> None:
    """Let any command go on from what is there: the one that made it was refused."""
    command = settings.output / WORK / COMMAND
    if command.exists():
        command.write_text("null", encoding="utf-8")


def _finished(settings: PrepareSettings, inputs: str | None) -> bool:
    folder = settings.output
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        before = json.loads((folder / INPUTS).read_text(encoding="utf-8"))["sha256"]
        ours = manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        ours, manifest, before = False, {}, None
    if not ours:
        raise Refused(
            "holds a corpus.json that this program did not write.",
            where=folder,
            why="Nothing was changed.",
            do="-o with another name",
        )
    if settings.overwrite:
        return False
    differ = differences(manifest["settings"], settings.content())
    if not differ and inputs is not None and inputs == before:
        return True
    if settings.renew:
        return False
    if differ:
        what = f"holds a corpus made with other settings ({differ})."
    elif inputs is None:
        what = "holds a corpus, and what comes from a stream cannot be compared with it."
    else:
        what = "holds a corpus of these files as they were before: some have changed."
    do = "the same command with --overwrite (replaces it), or with another -o"
    raise Refused(what, where=folder, why="Nothing was changed.", do=do)


def _same_command(settings: PrepareSettings, work: Path) -> None:
    before = json.loads((work / COMMAND).read_text(encoding="utf-8"))
    differ = "" if before is None else differences(before, settings.content())
    if differ and not (settings.overwrite or settings.renew):
        raise Refused(
            f"holds a half-made corpus of another command ({differ}).",
            where=settings.output,
            why="Nothing was changed.",
            do="that command again (it goes on), this one with --overwrite, or with another -o",
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """'vocab_size 4096, now 8192; …', or '' when nothing differs."""
    return "; ".join(
        f"{name} {_shown(before.get(name))}, now {_shown(value)}"
        for name, value in now.items()
        if before.get(name) != value
    )


def _shown(value: Any) -> str:
    return (
        " ".join(map(str, value)) if isinstance(value, list) else "not given" if value is None else str(value)
    )


def corpus_hash(tokenizer_sha256: str, splits: Mapping[str, Any]) -> str:
    """SHA-256 over the tokenizer's hash and the shards' hashes."""
    digest = hashlib.sha256(tokenizer_sha256.encode())
    for split in splits.values():
        for shard in split["shards"]:
            digest.update(shard["sha256"].encode())
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """A JSON file, the same bytes for the same value."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")


def publish(final: Path, output: Path) -> None:
    """Move a finished corpus into its folder; the manifest last, so that there is a corpus or none.

    An older corpus there is removed first; other files are left alone.
    """
    if final.joinpath(MANIFEST).exists():
        (output / MANIFEST).unlink(missing_ok=True)
        for pattern in (*PATTERNS, *SHARD_PATTERNS):
            for old in output.glob(pattern):
                old.unlink()
    for file in sorted(final.iterdir(), key=lambda file: file.name == MANIFEST):
        file.replace(output / file.name)
    shutil.rmtree(output / WORK)
