"""The rules of `.gitignore` files ("PATTERN FORMAT" in git's documentation), also used by `--exclude`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern line."""

    matches: re.Pattern[str]
    negated: bool
    folders_only: bool


class IgnoreRules:
    """Pattern lines that hold for one folder and all below it; the last line that matches decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.rules = [rule for rule in map(parse_rule, lines) if rule is not None]

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """True: ignored, False: taken back by a `!` line, None: no line matches.

        Args:
            path: relative to the rules' folder, with `/`.
            is_folder: whether it is a folder (lines that end in `/` match only those).
        """
        for rule in reversed(self.rules):
            if (is_folder or not rule.folders_only) and rule.matches.fullmatch(path):
                return not rule.negated
        return None


def parse_rule(line: str) -> Rule | None:
    """The rule of one line, None for blanks and comments."""
    line = re.sub(r"(?<!\\) +$", "", line.rstrip("\r\n"))
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    line = line[negated:]
    folders_only = line.endswith("/")
    line = line.rstrip("/")
    if not line:
        return None
    anchored = "/" in line
    line = re.sub(r"(\*\*/)+", "**/", line)  # repeats mean the same and would make matching slow
    pattern = _translate(line.removeprefix("/"))
    return Rule(re.compile(pattern if anchored else f"(?:.*/)?{pattern}", re.DOTALL), negated, folders_only)


def _translate(pattern: str) -> str:
    """A regular expression for the glob part of a line."""
    out, i = "", 0
    while i < len(pattern):
        at_start = i == 0 or pattern[i - 1] == "/"
        if at_start and pattern.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif at_start and pattern[i:] == "**":
            out, i = out + ".+", i + 2
        elif pattern[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif pattern[i] == "?":
            out, i = out + "[^/]", i + 1
        elif pattern[i] == "\\" and i + 1 < len(pattern):
            out, i = out + re.escape(pattern[i + 1]), i + 2
        elif found := re.compile(r"\[([!^]?)(\]?(?:\\.|[^\]\\])*)\]").match(pattern, i):
            out, i = out + _character_class(found[1], found[2]), found.end()
        else:
            out, i = out + re.escape(pattern[i]), i + 1
    return out


def _character_class(negation: str, members: str) -> str:
    escaped = re.sub(r"\\(.)|([\[\]^&~|])", lambda m: re.escape(m[1] or m[2]), members)
    pattern = f"(?!/)[{'^' if negation else ''}{escaped}]"
    try:
        re.compile(pattern)
    except re.error:  # such as a range that runs backwards: git lets it match nothing
        return "(?!)"
    return pattern


def made_by_program(folder: str) -> str | None:
    """Why a folder is not entered though no rule names it: what is in it was made by a program."""
    made = {
        "virtual environment": ("pyvenv.cfg",),
        "corpus of ownlm": ("corpus.json", "tokenizer.json"),
        "run of ownlm": ("run.json", "config.json"),
    }
    for what, names in made.items():
        if all(Path(folder, name).exists() for name in names):
            return f"{what} (folder not entered)"
    return None
