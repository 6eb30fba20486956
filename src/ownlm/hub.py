"""Model names to local folders: a path stands for itself, another name is fetched from the hub.

Fetched files go into the cache that transformers and other tools share (HF_HOME), in its layout. HF_ENDPOINT,
HF_TOKEN and HF_HUB_OFFLINE mean what they mean for huggingface_hub.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path

from ownlm.console.errors import OwnlmError, UsageError
from ownlm.console.output import warn
from ownlm.hub_errors import HubError, HubName
from ownlm.hub_fetch import fetch_file, fetching, make_room
from ownlm.hub_listing import TOKENIZER_MARKS, HubFile, Listing, ask, choose

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"({_PART}(?:/{_PART})?)(?:@([A-Za-z0-9_][A-Za-z0-9_./-]*))?")
_FILES = (
    ".json",
    ".jsonl",
    ".bin",
    ".txt",
    ".md",
    ".safetensors",
    ".gguf",
    ".pt",
    ".pth",
    ".yaml",
    ".yml",
    ".csv",
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def local_folder(name: str | os.PathLike[str], *, tokenizer_only: bool = False) -> Path:
    """The local folder (or file) that a name stands for.

    Args:
        name: a folder, a file, or a name on the hub such as "gpt2" or "Qwen/Qwen3-0.6B@main".
        tokenizer_only: fetch no weights.

    Raises:
        UsageError: nothing local has this name and the hub has not, either.
        Refused: the hub has something that is not fetched. OwnlmError: the hub cannot be reached.
    """
    path, text = Path(name), os.fspath(name)
    if path.exists():
        return path
    wanted = hub_name(text)
    if wanted is None:
        raise UsageError("no such file or folder, and not a name on the hub (owner/name).", where=text)
    try:
        return fetch(wanted, tokenizer_only=tokenizer_only)
    except HubError as error:
        raise error.own(text, "no such file or folder here.") from None


def hub_name(text: str) -> HubName | None:
    """The repository that a text names, or None when it can only mean something local.

    Local is what is written as a path (`./x`, `~/x`, `a/b/c`, `x/`), what lies in a folder that exists, and what
    ends like a file.
    """
    name = parse(text)
    if name is None or name.repository.endswith(_FILES):
        return None
    return None if "/" in name.repository and Path(name.repository).parent.exists() else name


def parse(text: str) -> HubName | None:
    """`name`, `owner/name` or either with `@revision`; None for anything else."""
    found = _NAME.fullmatch(text)
    if not found or len(found[1]) > 96:
        return None
    if ".." in text or "--" in found[1] or found[1].endswith((".", "-", ".git")):
        return None  # names that no hub gives
    return HubName(found[1], found[2] or "main")


def fetch(name: HubName, *, tokenizer_only: bool = False) -> Path:
    """The folder of a model of the hub, from the cache where it is there, else fetched into it.

    Raises:
        HubError: the hub gave nothing and the cache has no complete copy.
        Refused, OwnlmError: see `hub_fetch.fetch_file`.
    """
    from huggingface_hub import constants

    cached = cached_folder(name, tokenizer_only=tokenizer_only)
    if constants.HF_HUB_OFFLINE:
        if cached is None:
            raise off(name)
        return cached
    if cached is not None and _COMMIT.fullmatch(name.revision):
        return cached  # a commit never changes: nothing to ask
    try:
        listing = ask(name)
    except HubError as error:
        if cached is None:
            raise
        when = datetime.fromtimestamp(cached.stat().st_mtime)
        warn(f"{name}: {error.what} Using the copy of {when:%Y-%m-%d}, commit {cached.name[:12]}.")
        return cached
    return _into_cache(listing, choose(listing, tokenizer_only=tokenizer_only))


def off(name: HubName) -> HubError:
    """The error when the hub must not be asked."""
    from huggingface_hub import constants

    return HubError(
        "HF_HUB_OFFLINE forbids to ask the hub, and no complete copy is in the cache.",
        f"The cache is {constants.HF_HUB_CACHE}.",
        f"HF_HUB_OFFLINE=0, or on a machine with a network: ownlm pull {name} -o DIR; then DIR in place of {name}",
    )


def storage(repository: str) -> Path:
    """The folder of a repository in the shared cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / ("models--" + repository.replace("/", "--"))


def cached_folder(name: HubName, *, tokenizer_only: bool = False) -> Path | None:
    """The snapshot of a revision in the cache when it is complete, else None; no network."""
    folder, commit = storage(name.repository), name.revision
    if not _COMMIT.fullmatch(commit):
        reference = folder / "refs" / commit
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
    snapshot = folder / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not snapshot.is_dir():
        return None
    return snapshot if _is_complete(snapshot, tokenizer_only) else None


def _is_complete(folder: Path, tokenizer_only: bool) -> bool:
    """Other tools leave snapshots with some of the files only."""
    if tokenizer_only:
        return any((folder / name).is_file() for name in TOKENIZER_MARKS)
    if (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file():
        return True
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        weights = any(path.is_file() for path in folder.glob("*.safetensors"))
    else:
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            weights = all((folder / name).is_file() for name in names)
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return weights and (folder / "config.json").is_file()


def _into_cache(listing: Listing, files: list[HubFile]) -> Path:
    """Fetch what the cache lacks; links are made only when everything is there, so a snapshot is never half."""
    from huggingface_hub.utils import WeakFileLock

    folder = storage(listing.name.repository)
    snapshot = folder / "snapshots" / listing.commit
    lock = folder.parent / ".locks" / folder.name / "ownlm.lock"
    if not all(_has_size(snapshot / file.name, file.size) for file in files):
        try:
            for needed in (folder, lock.parent):  # other tools keep their locks there too
                needed.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OwnlmError(
                f"the cache cannot be written: {error.strerror}.", where=folder, do="HF_HOME=another/folder"
            ) from None
        # Another process that fetches the same model waits, and finds everything there.
        with WeakFileLock(lock):
            _fetch_missing(listing, files, folder, snapshot)
    if listing.name.revision != listing.commit:
        reference = folder / "refs" / listing.name.revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(listing.commit, encoding="utf-8")
    return snapshot


def _fetch_missing(listing: Listing, files: list[HubFile], folder: Path, snapshot: Path) -> None:
    missing = [file for file in files if not _has_size(snapshot / file.name, file.size)]
    wanted = [file for file in missing if not _has_size(folder / "blobs" / file.digest, file.size)]
    parts = folder / ".ownlm"
    parts.mkdir(exist_ok=True)
    if wanted:
        make_room(listing, wanted, parts)
        with fetching(listing, wanted) as progress:
            for file in wanted:
                fetch_file(
                    listing, file, folder / "blobs" / file.digest, parts / f"{file.digest}.part", progress
                )
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in missing:
        _link(folder / "blobs" / file.digest, snapshot / file.name)
    if not any(parts.iterdir()):
        parts.rmdir()


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _link(blob: Path, pointer: Path) -> None:
    """A snapshot's pointer: a relative link as other tools make it; where links need rights, a second name."""
    from huggingface_hub import constants

    pointer.unlink(missing_ok=True)
    try:
        if constants.HF_HUB_DISABLE_SYMLINKS:
            raise OSError("links are not wanted")
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        try:
            os.link(blob, pointer)
        except OSError:
            shutil.copyfile(blob, pointer)
