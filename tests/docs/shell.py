"""The commands of the pages run: `ownlm` inside this process (torch is loaded once), small programs outside."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ownlm import cli
from tests.docs.pages import ROOT, Command

PROGRAMS = ("echo", "printf", "cat", "head")  # what stands beside ownlm in a pipe
SOURCE = "(a source)"


class Substitution(NamedTuple):
    """What is typed differently in the test than on the page.

    Args:
        verb: of which verb.
        option: what is replaced together with its value.
        words: what is typed instead.
        reason: why.
        added: the words are added to a command that has none of these options.
    """

    verb: str
    option: str
    words: tuple[str, ...]
    reason: str
    added: tuple[str, ...] = ()


SUBSTITUTIONS = (
    Substitution("pretrain", "--minutes", ("--max-steps", "2"), "half an hour of training becomes two steps"),
    Substitution("pretrain", "--max-steps", ("--max-steps", "2"), "so do a thousand steps"),
    Substitution("pretrain", "--size", ("--size", "1M"), "a step of a larger model takes seconds"),
    Substitution("pretrain", "", ("--size", "1M"), "so does one of the default size", ("--size", "--from")),
    Substitution("finetune", "--max-steps", ("--max-steps", "2"), "a few steps will do"),
    Substitution("finetune", "", ("--eval-rows", "4"), "answers take longer than steps", ("--eval-rows",)),
    Substitution("quickstart", "--minutes", ("--minutes", "0.03"), "two seconds of training will do"),
    Substitution("quickstart", "", ("--minutes", "0.03"), "the default is five minutes", ("--minutes",)),
    Substitution("quickstart", "", ("--size", "1M"), "the same size on every machine", ("--size",)),
    Substitution(
        "bench",
        "",
        ("--prompt-tokens", "8", "--new-tokens", "4", "--repetitions", "1"),
        "the small run has a context of 32",
        ("--prompt-tokens",),
    ),
    Substitution("quickstart", "", ("my_texts",), "the standard library is megabytes of text", (SOURCE,)),
)

PYTHON_SUBSTITUTIONS = (
    (
        r"(ownlm\.pretrain\([^)\n]*)minutes=[\d.]+",
        r'\1max_steps=2, size="1M"',
        "the same as on the command line",
    ),
    (
        r"(ownlm\.quickstart\([^)\n]*)minutes=[\d.]+",
        r'\1minutes=0.03, size="1M"',
        "the same as on the command line",
    ),
)


class Result(NamedTuple):
    """What a program left: exit code, standard output, standard error."""

    code: int
    output: bytes
    errors: str


def substituted(words: Sequence[str]) -> tuple[list[str], list[Substitution]]:
    """(the words that are typed, the substitutions that were made) for what stands behind `ownlm`."""
    given = {*words, *([SOURCE] if len(words) > 1 and not words[1].startswith("-") else [])}
    typed, made = list(words), []
    for rule in SUBSTITUTIONS:
        if not words or words[0] != rule.verb:
            continue
        if rule.added:
            if given.isdisjoint(rule.added):
                typed[1:1] = rule.words
                made.append(rule)
        elif rule.option in given:
            place = typed.index(rule.option)
            typed[place : place + 2] = rule.words
            made.append(rule)
    return typed, made


def python_text(text: str) -> str:
    """A Python block as it is run."""
    for pattern, instead, _ in PYTHON_SUBSTITUTIONS:
        text = re.sub(pattern, instead, text)
    return text


def run(command: Command) -> Result:
    """Run a command of a page in the current folder; the exit code is that of the last stage that failed."""
    data, code, errors = b"", 0, ""
    for words in command.stages:
        result = _program(words, data)
        data, errors = result.output, errors + result.errors
        code = result.code or code
    if command.output:
        Path(command.output).write_bytes(data)
    return Result(code, data, errors)


def _program(words: Sequence[str], given: bytes) -> Result:
    if words[0] == "ownlm":
        return ownlm(substituted(words[1:])[0], given)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        return Result(2 if unknown else 0, b"", f"no target in the Makefile: {unknown}" if unknown else "")
    if words[0] not in PROGRAMS:
        return Result(127, b"", f"{words[0]} is not one of {', '.join(PROGRAMS)}: use a ```text block")
    done = subprocess.run(words, input=given, capture_output=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))


def ownlm(words: Sequence[str], given: bytes = b"") -> Result:
    """`ownlm` as it is typed, with its standard input."""
    streams = [io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") for data in (given, b"", b"")]
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr
    sys.argv = ["ownlm", *words]
    sys.stdin, sys.stdout, sys.stderr = streams
    try:
        code = cli.main(list(words))
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = before
    for stream in streams[1:]:
        stream.flush()
    output, errors = (stream.buffer.getvalue() for stream in streams[1:])  # type: ignore[attr-defined]
    return Result(code, output, errors.decode("utf-8", "replace"))


@contextmanager
def one_core() -> Iterator[None]:
    """Inside it ownlm finds one core: no worker processes to start, no threads that wait for each other."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    import torch

    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
