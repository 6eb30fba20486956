"""The index of a context, kept beside it and refreshed when its files change."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ownlm.console import output as out
from ownlm.corpus.discover import SourceFile, explain
from ownlm.search.index import Damaged, Index, Segment, Source, assemble, read, save, segment
from ownlm.search.reading import Context, find_context

FOLDER = ".ownlm-index"
SLOW = 5_000_000  # bytes to be read from which it is said before
ABANDONED_SECONDS = 3600.0  # age from which a partly written index is nobody's any more


@dataclass(frozen=True, slots=True)
class Opened:
    """An index that is up to date.

    Attributes:
        index: the index.
        context: what it is of.
        place: where it is kept; None where nothing can be written.
    """

    index: Index
    context: Context
    place: Path | None


def open_index(path: str | os.PathLike[str]) -> Opened:
    """The index of a file, folder or corpus folder: read, refreshed or made, and kept for the next time.

    Only files that changed are read again: another size or time, and then another content.

    Raises:
        UsageError: no such context, or bm25s is not installed. Refused: nothing in it can be read.
    """
    context = find_context(path)
    place = place_of(context.path)
    old = _read(place) if place is not None else None
    index, changed = _refresh(context, old)
    if changed and place is not None:
        place = _write(index, place)
    _say(context, index, built=changed)
    if changed:
        kept = (
            f"kept in {place}"
            if place is not None
            else "not kept: neither beside it nor in the cache may be written"
        )
        documents = sum(source.documents for source in index.sources)
        out.say(f"index of {documents:,} documents, {len(index.rows):,} passages, {kept}", style="dim")
    return Opened(index, context, place)


def place_of(context: Path) -> Path | None:
    """The file that keeps the index: in `.ownlm-index` beside the context, or in the user's cache when that, or
    the context, may not be written; None when both may not.
    """
    real = context.resolve()
    beside = real.parent / FOLDER
    if os.access(real, os.W_OK) and _makes(beside):
        return beside / f"{real.name}.npz"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ownlm" / "index"
    if not _makes(cache):
        return None
    return cache / f"{real.name}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:12]}.npz"


def _makes(folder: Path) -> bool:
    """Make a folder, which git is told to leave alone; whether it is there and may be written."""
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _read(place: Path) -> Index | None:
    try:
        return read(place)
    except FileNotFoundError:
        return None
    except OSError as error:
        out.warn(f"{place}: the index cannot be read ({error.strerror}); it is made anew.")
    except Damaged as error:
        out.warn(f"{place}: the index cannot be used ({error}); it is made anew.")
    return None


def _write(index: Index, place: Path) -> Path | None:
    try:
        for partial in place.parent.glob("*.partial"):
            with suppress(OSError):  # another process may be quicker
                if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
                    partial.unlink()
        save(index, place)
    except OSError as error:
        out.warn(f"{place}: the index cannot be written ({error.strerror}); the next time it is made anew.")
        return None
    return place


def _refresh(context: Context, old: Index | None) -> tuple[Index, bool]:
    """(the index of what the files hold now, whether it differs from the old one)."""
    held = {part.source.name: part for part in old.segments()} if old is not None else {}
    terms = dict(old.term_ids) if old is not None else {}
    stats = [Path(file.path).stat() for file in context.files]
    names = [context.name(file) for file in context.files]
    asked = sum(stat.st_size for name, stat in zip(names, stats) if not _same(held.get(name), stat))
    if asked > SLOW:
        out.say(f"reading {out.human_bytes(asked)} of {context.path} …", style="dim")
    segments: list[Segment] = []
    read_again = old is None or list(held) != names
    for file, name, stat in zip(context.files, names, stats):
        part = held.get(name)
        if part is None or not _same(part, stat):
            fresh = Source(name, stat.st_size, stat.st_mtime_ns, _hash(file))
            if part is not None and part.source.sha256 == fresh.sha256:
                part = replace(part, source=replace(part.source, size=fresh.size, modified=fresh.modified))
            else:
                part, read_again = segment(fresh, context.read(file), terms), True
        segments.append(part)
    if old is None or read_again:
        return assemble(segments, list(terms)), True
    sources = [part.source for part in segments]
    return replace(old, sources=sources), sources != old.sources


def _same(part: Segment | None, stat: os.stat_result) -> bool:
    """Whether size and time of a file are those that it was read with."""
    return part is not None and (part.source.size, part.source.modified) == (stat.st_size, stat.st_mtime_ns)


def _hash(file: SourceFile) -> str:
    with Path(file.path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _say(context: Context, index: Index, *, built: bool) -> None:
    """What of the context is not searched; what rules leave out only when the index is made."""
    for group in context.not_read:
        if built or not group.by_rule:
            for reason, files, _, do in explain([group]):
                out.say(f"not searched: {files:,} files, {reason}" + (f" ({do})" if do else ""))
    dropped: Counter[str] = Counter()
    for source in index.sources:
        dropped.update(source.dropped)
    for reason, count in dropped.items():
        out.say(f"not searched: {count:,} documents, {reason}")
