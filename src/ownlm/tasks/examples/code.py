"""Rows made of functions, for each task."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from ownlm.tasks.examples.functions import Function, functions, number_of

Row = dict[str, Any]

SHORT = 600  # characters of a function in a row with other text
FEWEST = 60  # functions of a package that is a label
LABELS = 12


class Grouped(NamedTuple):
    """A row and what is never on both sides of the split."""

    group: str
    row: Row


def chats() -> Iterator[Grouped]:
    """Two questions about a function, the second needs the first; English and Chinese in turns."""
    for function in functions():
        arguments = defaults(function)
        if not _described(function) or len(function.source) > SHORT or not arguments:
            continue
        number = number_of(function.place)
        name, default = arguments[number // 2 % len(arguments)]
        yield Grouped(
            function.package, {"messages": _turns(function, name, default, chinese=number % 2 == 1)}
        )


def _turns(function: Function, name: str, default: str | None, chinese: bool) -> list[Row]:
    code = f"```python\n{function.source.rstrip()}\n```"
    if chinese:
        asked = f"这个函数叫什么名字？它有什么用？\n\n{code}"
        described = f"它叫 `{function.name}`。说明是：{function.summary}"
        second = f"参数 `{name}` 的默认值是什么？"
        answer = (
            f"`{name}` 的默认值是 `{default}`。"
            if default is not None
            else f"`{name}` 没有默认值，必须给出。"
        )
    else:
        asked = f"What is this function called, and what does it do?\n\n{code}"
        described = f"It is called `{function.name}`. {function.summary}"
        second = f"What is the default of `{name}`?"
        answer = (
            f"The default of `{name}` is `{default}`."
            if default is not None
            else f"`{name}` has no default, it must be given."
        )
    return [
        {"role": role, "content": content}
        for role, content in zip(("user", "assistant") * 2, (asked, described, second, answer))
    ]


def completions() -> Iterator[Grouped]:
    """Header and docstring of a function → its body."""
    for function in functions():
        if _described(function) and len(function.source) <= SHORT:
            indent = function.body[: len(function.body) - len(function.body.lstrip())].rsplit("\n", 1)[-1]
            prompt = f'{function.header}{indent}"""{function.summary}"""\n'
            yield Grouped(function.package, {"prompt": prompt, "completion": function.body})


def summaries() -> Iterator[Grouped]:
    """The source of a function → the first line of its docstring."""
    for function in functions():
        if _described(function):
            yield Grouped(function.package, {"document": function.source, "summary": function.summary})


def labelled() -> Iterator[Grouped]:
    """The source of a function → its package; whole modules are on one side of the split."""
    modules: dict[str, set[str]] = defaultdict(set)
    counted: Counter[str] = Counter()
    for function in functions():
        modules[function.package].add(function.module)
        counted[function.package] += 1
    several = [name for name, number in counted.most_common() if len(modules[name]) > 3 and number >= FEWEST]
    for function in functions():
        if function.package in several[:LABELS]:
            yield Grouped(function.module, {"text": function.source, "label": function.package})


def questions() -> Iterator[Grouped]:
    """What the default of an argument is, as a span of the function."""
    for function in functions():
        if len(function.source) > SHORT:
            continue
        node = function.tree()
        starts = _line_starts(function.source)
        for argument, value in _defaults(node):
            if value is None or value.lineno != value.end_lineno:
                continue
            start = starts[value.lineno - 1] + value.col_offset
            text = function.source[start : starts[value.lineno - 1] + (value.end_col_offset or 0)]
            yield Grouped(
                function.package,
                {
                    "context": function.source,
                    "question": f"What is the default of {argument} in {function.name}?",
                    "answers": {"text": [text], "answer_start": [start]},
                },
            )


def tagged() -> Iterator[Grouped]:
    """The words of a function; tagged are its name, its arguments, their defaults, and exceptions."""
    for function in functions():
        if len(function.source) > SHORT:
            continue
        places = _places(function)
        tokens, tags, before = [], [], ""
        for token in tokenize.generate_tokens(io.StringIO(function.source).readline):
            if not token.string.strip() or token.type == tokenize.COMMENT:
                continue
            kind, first = places.get(token.start, ("", False))
            inside = not first and kind == before and bool(kind)
            tokens.append(token.string)
            tags.append(f"{'I' if inside else 'B'}-{kind}" if kind else "O")
            before = kind
        if len(set(tags)) > 2:
            yield Grouped(function.package, {"tokens": tokens, "tags": tags})


def _places(function: Function) -> dict[tuple[int, int], tuple[str, bool]]:
    """(line, column) of a token → (its kind, whether something of that kind begins there)."""
    node = function.tree()
    found: dict[tuple[int, int], tuple[str, bool]] = {(node.lineno, node.col_offset + 4): ("FUNCTION", True)}
    arguments = {argument.arg for argument in _arguments(node)}
    for _, value in _defaults(node):
        if value is not None:
            found |= _tokens_of(function.source, value)
    for inner in ast.walk(node):
        if isinstance(inner, ast.arg) or (isinstance(inner, ast.Name) and inner.id in arguments):
            found.setdefault((inner.lineno, inner.col_offset), ("ARGUMENT", True))
        raised = (
            inner.exc
            if isinstance(inner, ast.Raise)
            else inner.type
            if isinstance(inner, ast.ExceptHandler)
            else None
        )
        raised = raised.func if isinstance(raised, ast.Call) else raised
        if isinstance(raised, ast.Name):
            found[raised.lineno, raised.col_offset] = ("EXCEPTION", True)
    return found


def _tokens_of(source: str, value: ast.expr) -> dict[tuple[int, int], tuple[str, bool]]:
    start, end = (value.lineno, value.col_offset), (value.end_lineno or 0, value.end_col_offset or 0)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start: ("DEFAULT", t.start == start) for t in tokens if start <= t.start < end}


def defaults(function: Function) -> list[tuple[str, str | None]]:
    """(argument, source of its default or None) of a function, `self` and `cls` left out."""
    pairs = _defaults(function.tree())
    return [(name, None if value is None else ast.unparse(value)) for name, value in pairs]


def _defaults(node: ast.FunctionDef) -> list[tuple[str, ast.expr | None]]:
    plain = [*node.args.posonlyargs, *node.args.args]
    missing: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
    pairs = [*zip(plain, [*missing, *node.args.defaults]), *zip(node.args.kwonlyargs, node.args.kw_defaults)]
    return [(argument.arg, value) for argument, value in pairs if argument.arg not in ("self", "cls")]


def _arguments(node: ast.FunctionDef) -> list[ast.arg]:
    extra = [argument for argument in (node.args.vararg, node.args.kwarg) if argument is not None]
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, *extra]


def _line_starts(source: str) -> list[int]:
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def _described(function: Function) -> bool:
    """Whether the first line of the docstring is a sentence; what ends without a full stop goes on below."""
    summary = function.summary
    return 20 <= len(summary) <= 120 and summary.isascii() and " " in summary and summary.endswith(".")
