"""Fetching one file of the hub: goes on where an earlier try ended, and keeps only what has the announced hash."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ownlm.console.errors import Interrupted, OwnlmError, Refused
from ownlm.console.output import human_bytes, say
from ownlm.console.progress import Progress
from ownlm.hub_errors import HubError, translate
from ownlm.hub_listing import HubFile, Listing, request_headers

TRIES = 3  # in a row without a new byte
PAUSE_SECONDS = 1.0
BLOCK = 2**20


class Partial:
    """The bytes of a file that are here already, and their running hash."""

    def __init__(self, file: HubFile, path: Path) -> None:
        self.file, self.path = file, path
        self.stream = path.open("ab+")
        self.size, self.hash = 0, new_hash(file)
        self.stream.seek(0)
        while block := self.stream.read(BLOCK):
            self.size += len(block)
            self.hash.update(block)
        if self.size > file.size:
            self.restart()

    def add(self, data: bytes) -> None:
        """Append what arrived."""
        self.stream.write(data)
        self.hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Forget everything."""
        self.stream.truncate(0)
        self.size, self.hash = 0, new_hash(self.file)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def new_hash(file: HubFile) -> Any:
    """The hash that the listing announces: SHA-256, or git's SHA-1 of a blob for small files."""
    if file.is_sha256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def is_whole(file: HubFile, path: Path) -> bool:
    """Whether a local file has the announced size and hash."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    found = new_hash(file)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            found.update(block)
    return bool(found.hexdigest() == file.digest)


def make_room(listing: Listing, files: Sequence[HubFile], folder: Path) -> None:
    """Refuse what the disk cannot hold, before the first byte."""
    needed, free = sum(file.size for file in files), shutil.disk_usage(folder).free
    if needed > free:
        raise Refused(
            f"{human_bytes(needed)} are to be fetched, and {folder} has {human_bytes(free)} left.",
            where=listing.name,
            why="Nothing was fetched.",
            do="another disk: HF_HOME for the cache, -o for ownlm pull",
        )


@contextmanager
def fetching(listing: Listing, files: Sequence[HubFile]) -> Iterator[Progress]:
    """Says what is fetched, shows progress, and turns Ctrl-C into a message."""
    total = sum(file.size for file in files)
    say(f"{listing.name}: {len(files)} files, {human_bytes(total)}, commit {listing.commit[:12]}")
    try:
        with Progress(f"fetching {listing.name}", total) as progress:
            yield progress
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped; what has arrived is kept.", where=listing.name, do="the same command again goes on"
        ) from None


def fetch_file(listing: Listing, file: HubFile, target: Path, part: Path, progress: Progress) -> None:
    """Fetch a file to `target`; `part` holds what has arrived until the whole file is there and checked.

    Raises:
        HubError: the hub gave nothing. Refused: other bytes than the listing announces.
        OwnlmError: the connection ended too often.
    """
    from huggingface_hub.utils import WeakFileLock

    part.parent.mkdir(parents=True, exist_ok=True)
    lock = part.with_name(part.name + ".lock")
    with WeakFileLock(lock):  # two processes must not append to the same file
        if is_whole(file, target):
            progress.update(file.size)
            return
        with Partial(file, part) as partial:
            progress.update(partial.size)
            _fill(listing, partial, progress)
        if partial.hash.hexdigest() != file.digest:
            part.unlink()
            kind = "SHA-256" if file.is_sha256 else "git hash"
            raise Refused(
                f"{file.name} has other bytes than the hub's list announces; they were deleted.",
                where=listing.name,
                why=f"{kind} {partial.hash.hexdigest()[:16]}… instead of {file.digest[:16]}….",
                do="the same command again; if it stays so, another address in HF_ENDPOINT",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
    lock.unlink(missing_ok=True)


def _fill(listing: Listing, partial: Partial, progress: Progress) -> None:
    """Ask until all bytes are there; a cut connection is taken up again."""
    failures = 0
    while partial.size < partial.file.size:
        before = partial.size
        try:
            _stream(listing, partial, progress)
        except HubError as error:
            if error.kind is not OwnlmError:  # no access: another try changes nothing
                raise
            failures = 1 if partial.size > before else failures + 1
            if failures >= TRIES:
                have = f"{human_bytes(partial.size)} of {human_bytes(partial.file.size)} are kept"
                raise OwnlmError(
                    f"{partial.file.name}: the connection ended, {have}.",
                    where=listing.name,
                    why=error.what,
                    do="the same command again goes on from there",
                ) from None
            time.sleep(PAUSE_SECONDS)


def _stream(listing: Listing, partial: Partial, progress: Progress) -> None:
    """One request: the bytes from where we are to the end."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import get_session, hf_raise_for_status

    url = hf_hub_url(
        listing.name.repository, partial.file.name, revision=listing.commit, endpoint=constants.ENDPOINT
    )
    headers = request_headers()
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        with get_session().stream("GET", url, headers=headers, timeout=limit) as response:
            hf_raise_for_status(response)
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {partial.size}-")
            if partial.size and not (response.status_code == 206 and goes_on):
                partial.restart()  # a server without ranges sends everything again
            for chunk in response.iter_bytes():
                if partial.size + len(chunk) > partial.file.size:
                    raise _wrong_size(listing, partial, "more")
                partial.add(chunk)
                progress.update(len(chunk), note=partial.file.name)
    except HTTPError as error:
        if getattr(getattr(error, "response", None), "status_code", 0) == 416:
            raise _wrong_size(listing, partial, "fewer") from None
        raise translate(listing.name, error) from None
    if partial.size < partial.file.size:
        raise _wrong_size(listing, partial, "fewer")


def _wrong_size(listing: Listing, partial: Partial, what: str) -> Refused:
    """The server's file is not the listed one: nothing of it is kept."""
    partial.stream.close()
    partial.path.unlink(missing_ok=True)
    return Refused(
        f"{partial.file.name} has {what} bytes than the {partial.file.size:,} that the hub's list announces; "
        "they were deleted.",
        where=listing.name,
        do="the same command again; if it stays so, another address in HF_ENDPOINT",
    )
