"""The functions of Python's standard library: source, first line of the docstring, arguments and their defaults."""

from __future__ import annotations

import ast
import hashlib
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ownlm.corpus.discover import discover
from ownlm.corpus.standard_library import standard_library

LONGEST = 1200  # characters of a function: a small model has a short window


@dataclass(frozen=True)
class Function:
    """One function or method, without the spaces before its lines.

    Attributes:
        package: top level: `email` for `email.message`.
        module: dotted.
        name: as it is defined.
        header: `def …:` with all its lines, decorators left out.
        body: the lines below, without the docstring.
        summary: the first line of the docstring, "" without one.
    """

    package: str
    module: str
    name: str
    header: str
    body: str
    summary: str

    @property
    def source(self) -> str:
        """Header and body."""
        return self.header + self.body

    @property
    def place(self) -> str:
        """`module.name`, for ordering."""
        return f"{self.module}.{self.name}"

    def tree(self) -> ast.FunctionDef:
        """Its syntax tree; lines and columns are those of `source`."""
        node = ast.parse(self.source).body[0]
        assert isinstance(node, ast.FunctionDef)
        return node


@cache
def functions() -> tuple[Function, ...]:
    """All functions in ASCII of up to `LONGEST` characters, in the order of the files; copies once."""
    found: dict[str, Function] = {}
    library = standard_library()
    root = Path(library.sources[0])
    for file in discover(library.sources, exclude=library.exclude).files:
        path = Path(file.path)
        if path.suffix != ".py":
            continue
        for function in _of_module(path, path.relative_to(root)):
            found.setdefault(function.source, function)
    return tuple(found.values())


def _of_module(path: Path, relative: Path) -> Iterator[Function]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError):
        return  # Python 2 code in templates and the like
    lines = text.split("\n")
    parts = [*relative.parent.parts, relative.stem]
    module = ".".join(part for part in parts if part != "__init__")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            function = _function(node, lines, parts[0], module)
            if function is not None:
                yield function


def _function(node: ast.FunctionDef, lines: list[str], package: str, module: str) -> Function | None:
    """None for what is long, not ASCII, on one line, or has its docstring on a line with code."""
    docstring, rest = ast.get_docstring(node), node.body
    if docstring is not None:
        rest = node.body[1:]
    if not rest or rest[0].lineno == node.lineno or node.end_lineno is None:
        return None
    first = node.body[0]
    header_end = first.lineno - 1  # the lines before the body: comments between belong to the header
    body_start = (first.end_lineno or first.lineno) if docstring is not None else header_end
    header = lines[node.lineno - 1 : header_end]
    body = lines[body_start : node.end_lineno]
    source = textwrap.dedent("\n".join([*header, *body]))
    if not source.isascii() or len(source) > LONGEST or "\t" in source:
        return None
    summary = (docstring or "").strip().split("\n")[0].strip()
    cut = len("\n".join(source.split("\n")[: len(header)])) + 1
    function = Function(package, module, node.name, source[:cut], source[cut:] + "\n", summary)
    try:
        function.tree()
    except (SyntaxError, AssertionError):
        return None
    return function


def number_of(text: str) -> int:
    """A number that depends on a text alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")
