"""The pages of the documentation as data: their code blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md")))
RUN_LANGUAGES = ("sh", "python")
SHOWN_LANGUAGES = ("text", "json", "yaml")  # installation, samples of output and of files: not run

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXIT_CODE = re.compile(r"# exit code (\d+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page its text begins in."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A line of a `sh` block.

    Args:
        text: as it is written, its comment left out.
        stages: the words of each program of a pipe.
        output: the file that `>` names, or "".
        exit_code: announced in a comment `# exit code 3`, else 0.
        line: of the page.
    """

    text: str
    stages: tuple[tuple[str, ...], ...]
    output: str
    exit_code: int
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in _BLOCK.finditer(text)]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a `sh` block; blank lines and lines of comment are none."""
    for number, line in enumerate(block.text.splitlines(), block.line):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
        lexer.whitespace_split = True
        words = list(lexer)
        if not words:
            continue
        announced = _EXIT_CODE.search(line)
        output = ""
        if ">" in words:
            words, (output,) = words[: words.index(">")], words[words.index(">") + 1 :]
        stages: list[list[str]] = [[]]
        for word in words:
            if word == "|":
                stages.append([])
            else:
                stages[-1].append(word)
        text = re.sub(r"\s+# .*$", "", line)
        yield Command(text, tuple(map(tuple, stages)), output, int(announced[1]) if announced else 0, number)


def page_commands(page: Path) -> list[Command]:
    """All commands of a page's `sh` blocks."""
    return [command for block in blocks(page) if block.language == "sh" for command in commands(block)]


def ownlm_words(command: Command) -> Iterator[tuple[str, ...]]:
    """What is typed behind `ownlm` in a command."""
    for words in command.stages:
        if words[0] == "ownlm":
            yield words[1:]


def links(page: Path) -> Iterator[str]:
    """The relative links of a page, code left out."""
    text = re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", page.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            yield target.split("#")[0]


def mentioned_options(page: Path) -> set[str]:
    """Options that the prose of a page names in `code`."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {
        option
        for code in re.findall(r"`([^`\n]+)`", text)
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", code)
    }


def name(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()
