"""From what a person typed (files, folders, globs, `-`) to a sorted list of files; what is not read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

from ownlm.console.errors import UsageError, did_you_mean
from ownlm.corpus import kinds
from ownlm.corpus.encodings import NotText, UnknownEncoding, detect
from ownlm.corpus.ignore import IgnoreRules, made_by_program

ALWAYS = IgnoreRules(["__pycache__/", "node_modules/", "*.egg-info/", "CVS/"])
HEAD = 8192  # bytes looked at to tell text from other content
UNPACK = {"gzip": "gunzip -k FILE", "xz": "unxz -k FILE", "bz2": "bunzip2 -k FILE", "zstd": "unzstd FILE"}
ICONV = "iconv -f ENCODING -t UTF-8 FILE > FILE.utf8.txt"
STDIN = "<stdin>"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to be read.

    Attributes:
        path: what `open` takes; "-" is stdin.
        size: bytes on disk; 0 for a stream.
        kind: "text", "html", "jsonl", "json", "csv", "tsv", "parquet", "docx", "pptx", "xlsx", "pdf".
        compression: None, "gzip", "xz", "bz2" or "zstd".
        explicit: typed by name, not found in a folder: a file that cannot be read is then an error.
        stream: a pipe, readable once, by the main process.
    """

    path: str
    size: int
    kind: str
    compression: str | None = None
    explicit: bool = False
    stream: bool = False

    @property
    def name(self) -> str:
        """The path for messages and manifests: valid Unicode, `/` between folders."""
        if self.path == "-":
            return STDIN
        return valid_name(self.path)


def valid_name(path: str) -> str:
    """A path as valid Unicode, `/` between folders."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")


@dataclass(slots=True)
class NotRead:
    """Files that are not read for one reason.

    Attributes:
        reason: why, e.g. ".png: image, not text".
        files: how many.
        bytes: their size on disk together.
        do: the command that would read them, with `FILE` and `FOLDER` for one of them (`with_file`); or "".
        examples: the first three.
        by_rule: left out because of a rule (hidden, `.gitignore`, `--exclude`), not for want of a reader.
    """

    reason: str
    files: int = 0
    bytes: int = 0
    do: str = ""
    examples: list[str] = field(default_factory=list)
    by_rule: bool = False


@dataclass(slots=True)
class Found:
    """The files to be read, sorted by path, and the others grouped by reason (largest first)."""

    files: list[SourceFile]
    not_read: list[NotRead]


def discover(sources: Sequence[str | os.PathLike[str]], *, exclude: Sequence[str] = ()) -> Found:
    """Expand what was typed.

    Args:
        sources: files, folders (recursively), globs, `-` for stdin.
        exclude: patterns in `.gitignore` syntax, below each typed folder; `!pattern` takes a file
            back in that a `.gitignore` or the rule about hidden files leaves out.

    Raises:
        UsageError: a source does not exist, a glob matches nothing, a typed file is not readable as text.
    """
    walk = _Walk(IgnoreRules(exclude))
    for source in sources:
        text = os.fspath(source)
        if text == "-":
            walk.files["-"] = SourceFile("-", 0, "text", explicit=True, stream=True)
        elif os.path.lexists(text):
            walk.add(text, explicit=True)
        else:
            for match in _expand(text):
                walk.add(match, explicit=False)
    for path, root in walk.links:
        walk.link(path, root)
    not_read = sorted(walk.not_read.values(), key=lambda n: (-n.bytes, -n.files, n.reason))
    return Found(sorted(walk.files.values(), key=lambda f: f.name), not_read)


def _expand(pattern: str) -> list[str]:
    # Path.glob would not take an absolute pattern.
    matches = sorted(glob(pattern, recursive=True)) if has_magic(pattern) else []  # noqa: PTH207
    if matches:
        return matches
    if has_magic(pattern):
        raise UsageError("no file matches this pattern.", where=pattern)
    folder = Path(pattern).parent
    siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    raise UsageError(f"no such file or folder.{did_you_mean(Path(pattern).name, siblings)}", where=pattern)


class _Walk:
    """What was found so far; files are kept by their real path, so that none is read twice."""

    def __init__(self, exclude: IgnoreRules) -> None:
        self.exclude = exclude
        self.files: dict[str, SourceFile] = {}
        self.links: list[tuple[str, str]] = []  # in folders; followed last, so that a file keeps its own name
        self.not_read: dict[str, NotRead] = {}

    def add(self, path: str, explicit: bool) -> None:
        """A typed path or a match of a glob."""
        if Path(path).is_dir():
            self.folder(path, os.path.realpath(path), "", [])
        elif not explicit and self.exclude.verdict(path.replace(os.sep, "/").lstrip("/"), False):
            self.leave(path, "left out by --exclude", by_rule=True)
        else:
            self.file(path, explicit)

    def folder(self, path: str, root: str, below: str, rules: list[tuple[str, IgnoreRules]]) -> None:
        """All files of a folder. `below`: its path in the typed folder; `rules`: what its parents say."""
        try:
            entries = sorted(os.scandir(path), key=lambda e: e.name)
        except OSError as error:
            self.leave(path, f"folder cannot be read: {error.strerror}")
            return
        if any(entry.name == ".gitignore" and entry.is_file() for entry in entries):
            text = Path(path, ".gitignore").read_text(encoding="utf-8", errors="replace")
            rules = [*rules, (below, IgnoreRules(text.splitlines()))]
        for entry in entries:
            relative = f"{below}/{entry.name}" if below else entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            reason = self.ignored(relative, entry.name, is_folder, rules)
            if reason is None and is_folder:
                reason = made_by_program(entry.path)
            if reason is not None:
                self.leave(entry.path, reason, by_rule=True)
            elif entry.is_symlink():
                self.links.append((entry.path, root))
            elif is_folder:
                self.folder(entry.path, root, relative, rules)
            else:
                self.file(entry.path, explicit=False)

    def ignored(
        self, relative: str, name: str, is_folder: bool, rules: list[tuple[str, IgnoreRules]]
    ) -> str | None:
        """Why an entry of a folder is left out by a rule, or None."""
        what = " (folder not entered)" if is_folder else ""
        verdict = self.exclude.verdict(relative, is_folder)
        if verdict is not None:
            return f"left out by --exclude{what}" if verdict else None
        if name.startswith("."):
            return f"hidden{what}"
        if ALWAYS.verdict(relative, is_folder):
            return f"{name}{what}"
        for below, rule in reversed(rules):
            verdict = rule.verdict(relative[len(below) + 1 :] if below else relative, is_folder)
            if verdict is not None:
                return f"left out by .gitignore{what}" if verdict else None
        return None

    def link(self, path: str, root: str) -> None:
        """A symbolic link in a folder: read when it leads to a file of the same folder."""
        real = os.path.realpath(path)
        if not Path(real).exists():
            self.leave(path, "symbolic link that leads nowhere")
        elif os.path.commonpath([real, root]) != root:
            self.leave(path, "symbolic link that leads outside the folder", "ownlm prepare FILE …")
        elif Path(real).is_dir():
            self.leave(path, "symbolic link to a folder", by_rule=True)
        else:
            self.file(path, explicit=False)

    def file(self, path: str, explicit: bool) -> None:
        """One file: its kind and compression, or why it is not read."""
        real = os.path.realpath(path)
        if real in self.files and not (explicit and not self.files[real].explicit):
            return
        try:
            status = Path(path).stat()
            if not stat.S_ISREG(status.st_mode):
                if explicit:
                    self.files[real] = SourceFile(path, 0, "text", explicit=True, stream=True)
                else:
                    self.leave(path, "not a regular file")
                return
            with Path(path).open("rb") as stream:
                head = stream.read(HEAD)
        except OSError as error:
            if explicit:
                raise UsageError(f"cannot be read: {error.strerror}.", where=path) from None
            self.leave(path, f"cannot be read: {error.strerror}")
            return
        compression = kinds.compression_of(head)
        kind = kinds.KIND_OF.get(kinds.suffix_of(path, compression is not None), "text")
        refusal = refused(path, head, kind, compression)
        if refusal is None:
            self.files[real] = SourceFile(path, status.st_size, kind, compression, explicit)
        elif explicit and refusal[0] != "empty file":
            raise UsageError(f"not read: {refusal[0]}.", where=path, do=kinds.with_file(refusal[1], path))
        else:
            self.leave(path, *refusal)

    def leave(self, path: str, reason: str, do: str = "", by_rule: bool = False) -> None:
        """Count a path that is not read."""
        group = self.not_read.setdefault(reason, NotRead(reason, do=do, by_rule=by_rule))
        group.files += 1
        try:
            status = os.lstat(path)
            group.bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0
        except OSError:
            pass  # it vanished meanwhile: its size is not known, it is counted all the same
        if len(group.examples) < 3:
            group.examples.append(path)


def refused(path: str, head: bytes, kind: str, compression: str | None) -> tuple[str, str] | None:
    """(reason, command that helps) when a file cannot be read as text, else None.

    Args:
        path: its name.
        head: its first bytes.
        kind: the kind its extension stands for.
        compression: by its magic bytes.
    """
    suffix = kinds.suffix_of(path, compression is not None)
    if not head:
        return "empty file", ""
    if suffix in kinds.ARCHIVES:
        return f"{suffix}: archive", kinds.ARCHIVES[suffix]
    if compression == "zstd" and not kinds.installed("zstandard"):
        return ".zst without zstandard", "pip install 'ownlm[data]'"
    if kind == "parquet" and not kinds.installed("pyarrow"):
        return ".parquet without pyarrow", "pip install 'ownlm[data]'"
    if kind in kinds.BINARY_KINDS and compression is not None:
        return f"{suffix} inside {compression}", UNPACK[compression]
    if kind in kinds.OFFICE_KINDS:
        return None if kinds.installed("markitdown") else (f".{kind}", "pip install 'ownlm[documents]'")
    if suffix in kinds.OLD_OFFICE:
        new = kinds.OLD_OFFICE[suffix]
        return (
            f"{suffix}: old Office format",
            f"soffice --headless --convert-to {new[1:]} FILE --outdir FOLDER",
        )
    if compression is not None or kind == "parquet":
        return None
    if suffix in kinds.NOT_TEXT and b"\0" in head:
        return f"{suffix}: {kinds.NOT_TEXT[suffix]}, not text", ""
    try:
        detect(head, complete=len(head) < HEAD)
    except UnknownEncoding as problem:
        if kind != "html":  # a page may declare its encoding
            return f"{suffix or 'no extension'}: {problem}", ICONV
    except NotText as problem:
        if suffix in kinds.NOT_TEXT:
            return f"{suffix}: {kinds.NOT_TEXT[suffix]}, not text", ""
        return f"{suffix or 'no extension'}: not text ({problem})", ""
    return None


def explain(not_read: Sequence[NotRead]) -> Iterator[tuple[str, int, int, str]]:
    """Rows (reason, files, bytes, what would read them) of the closing table, rules last."""
    for group in sorted(not_read, key=lambda n: n.by_rule):
        yield group.reason, group.files, group.bytes, group.do
