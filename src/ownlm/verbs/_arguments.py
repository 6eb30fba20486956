"""What the verbs that take text agree on: `@file` and `-` are read, everything else is text."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError

MAX_TEXT_BYTES = 1_000_000_000  # an argument, not a corpus


def read_argument(word: str) -> str:
    """The text that an argument means.

    Args:
        word: `@path` (the file's content), `-` (standard input), or the text itself.

    Raises:
        UsageError: no such file. Refused: not UTF-8 text.
    """
    if word == "-":
        return read_stdin()
    if word.startswith("@") and len(word) > 1:
        return read_file(Path(word[1:]))
    return word


def read_file(path: Path) -> str:
    """A text file in any encoding that `prepare` knows; another one than UTF-8 is said."""
    from ownlm.corpus.encodings import NotText, decode

    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise Refused(f"larger than {MAX_TEXT_BYTES // 10**6} MB.", where=path, do="ownlm prepare")
        data = path.read_bytes()
    except FileNotFoundError:
        do = "a path that exists"
        raise UsageError("no such file.", where=path, do=do) from None
    except IsADirectoryError:
        raise UsageError("a folder, a file is needed.", where=path) from None
    try:
        decoded = decode(data)
    except NotText as error:
        raise Refused(f"not a text file: {error}.", where=path) from None
    if decoded.encoding not in ("utf-8", "ascii"):
        out.say(f"{path}: read as {decoded.encoding}")
    if decoded.replaced:
        out.warn(f"{path}: {decoded.replaced:,} characters could not be decoded and are shown as \ufffd.")
    return decoded.text


def read_schema(word: str) -> dict[str, Any]:
    """The JSON schema that an argument means: JSON as it is typed, or a file (`@file` too).

    Raises:
        UsageError: no such file, or no JSON object.
    """
    typed = word.lstrip().startswith("{")
    text = word if typed else read_file(Path(word.removeprefix("@")))
    where = "--schema" if typed else word
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"not JSON: {error}.", where=where) from None
    if not isinstance(found, dict):
        raise UsageError(
            "a JSON schema is an object.", where=where, do='{"type": "object", "properties": {}}'
        )
    return found


def read_stdin() -> str:
    """Standard input as UTF-8 text, without the line end that `echo` adds."""
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("there is no standard input to read.", where="-")
    if sys.stdin.isatty():
        out.say("Reading from the keyboard; end with Ctrl-D (Windows: Ctrl-Z, Enter).")
    buffer = getattr(sys.stdin, "buffer", None)
    try:
        text = sys.stdin.read() if buffer is None else buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"byte {error.start:,} is not UTF-8.", where="standard input") from None
    text = text.replace("\r\n", "\n")
    return text[:-1] if text.endswith("\n") else text


def texts_and_paths(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(texts, files and folders) that arguments mean where both are possible.

    `-` is read as a text, `@path` is a path, and so is what exists; everything else is text.

    Raises:
        UsageError: a word that looks like a path and is none: a misspelt name must not be taken for text.
    """
    texts: list[str] = []
    paths: list[str] = []
    for word in words:
        if word == "-":
            texts.append(read_stdin())
        elif word.startswith("@") and len(word) > 1:
            paths.append(word[1:])
        elif exists(word):
            paths.append(word)
        elif looks_like_path(word):
            do = f"printf '%s' {word} | the same command with - in its place, if it is meant as text"
            raise UsageError("no such file or folder.", where=word, do=do)
        else:
            texts.append(word)
    return texts, paths


def given_texts(words: Sequence[str]) -> tuple[str, Iterator[str]]:
    """(what they are, in words; the normalised documents): files, folders, standard input, literal text.

    Raises:
        UsageError: see `texts_and_paths`.
    """
    from ownlm.evaluation.documents import normalised, read_texts

    literal, paths = texts_and_paths(words)
    read = (text.text for text in read_texts(paths)) if paths else ()
    what = ", ".join("standard input" if word == "-" else word[:60] for word in words)
    return what, chain(map(normalised, literal), read)


_PATH_LIKE = re.compile(r"[!-~]*[/\\][!-~]*|[!-~]+\.\w{1,5}", re.ASCII)


def looks_like_path(word: str) -> bool:
    """Whether a word that names nothing was probably meant as a path: a misspelt name must not be taken for text."""
    return _PATH_LIKE.fullmatch(word) is not None


def exists(word: str) -> bool:
    """Whether a word names a file or folder."""
    try:
        return bool(word) and Path(word).exists()
    except (OSError, ValueError):  # a text too long for a name, or with a NUL
        return False
