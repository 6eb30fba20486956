"""Jinja for templates that come from anywhere: sandboxed, bounded in work and in size, the same text every time.

What transformers gives a chat template is here too (`tojson`, `raise_exception`, `{% generation %}`, loop controls), but
for the clock: a template that writes today's date would render other ids tomorrow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 1_000_000  # passes of loops and calls of one rendering; a long conversation takes thousands
MAX_CHARACTERS = 8_000_000  # of a rendering and of any text that is kept in a variable
MAX_SOURCE = 256_000  # characters of a template; the longest in use have about 30,000

# They make a text of any length out of a number, or draw at random.
_FILTERS_LEFT_OUT = ("center", "format", "indent", "wordwrap", "xmlattr", "urlize", "random", "pprint")
_METHODS_LEFT_OUT = ("center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "translate")
_BOUNDED, _COUNTED = "ownlm_bounded", "ownlm_counted"

GENERATION_MARK = "\x00ownlm-generation\x00"


class Exceeded(jinja2.TemplateError):
    """A template does too much."""


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: what the assistant writes, between two marks."""

    tags = {"generation"}  # noqa: RUF012 - so Jinja wants it

    def parse(self, parser: Any) -> nodes.Node:
        """The node for a block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{GENERATION_MARK}{caller()}{GENERATION_MARK}"


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment that counts what its templates do.

    Not for threads: the counter belongs to the rendering that runs.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
        )
        self.left = 0
        self.filters = {k: v for k, v in self.filters.items() if k not in _FILTERS_LEFT_OUT}
        self.filters |= {"tojson": _to_json, "replace": _replace, "join": _join}
        self.filters |= {_BOUNDED: _bounded, _COUNTED: self._counted}
        self.globals = {
            name: value
            for name, value in self.globals.items()
            if name in ("range", "dict", "namespace", "cycler", "joiner")
        } | {"raise_exception": _raise}

    def compiled(self, source: str) -> jinja2.Template:
        """A template whose loops are counted and whose variables are bounded.

        Raises:
            jinja2.TemplateError: it is none, or too long.
        """
        if len(source) > MAX_SOURCE:
            raise Exceeded(f"longer than {MAX_SOURCE:,} characters")
        tree = self.parse(source)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filtered(loop.iter, _COUNTED)
        for assignment in list(tree.find_all(nodes.Assign)):
            assignment.node = _filtered(assignment.node, _BOUNDED)
        for block in list(tree.find_all(nodes.AssignBlock)):
            block.filter = _filtered(block.filter, _BOUNDED)
        for scope in list(tree.find_all(nodes.With)):
            scope.values = [_filtered(value, _BOUNDED) for value in scope.values]
        return jinja2.Template.from_code(self, self.compile(tree), self.globals)

    def render(self, template: jinja2.Template, variables: Mapping[str, Any]) -> str:
        """The text of a template.

        Raises:
            jinja2.TemplateError: the template refuses, or does too much.
        """
        self.left = MAX_STEPS
        pieces, size = [], 0
        try:
            for piece in template.generate(**variables):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_CHARACTERS:
                    raise Exceeded(f"writes more than {MAX_CHARACTERS:,} characters")
        except jinja2.TemplateError:
            raise
        except RecursionError:
            raise Exceeded("calls itself without end") from None
        except Exception as error:  # what a template does with its values may fail in any way
            raise jinja2.TemplateError(f"{type(error).__name__}: {error}") from None
        return "".join(pieces)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        self._step()
        for value in (*args, *kwargs.values()):
            _bounded(value)
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args)
        if isinstance(owner, str) and name == "join":
            return _join(args[0] if args else (), owner)
        return _bounded(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
                _bounded(left), _bounded(right)
        elif not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            raise Exceeded(f"{operator} is for numbers alone")
        elif operator == "**" and (abs(left) > 1e6 or abs(right) > 100):
            raise Exceeded("a power that is too large")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _METHODS_LEFT_OUT:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def _counted(self, values: Iterable[Any]) -> Iterator[Any] | Iterable[Any]:
        """The values of a loop, each of them a step."""
        if isinstance(values, jinja2.Undefined):
            return values
        found = list(values)
        for _ in found:
            self._step()
        return found

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Exceeded(f"takes more than {MAX_STEPS:,} steps")


def _filtered(node: nodes.Node | None, name: str) -> nodes.Filter:
    found = nodes.Filter(node, name, [], [], None, None)
    found.set_lineno(node.lineno if node is not None else 0)
    return found


def _bounded(value: Any) -> Any:
    """The value, when it is not too long."""
    if isinstance(value, (str, list, tuple, dict)) and len(value) > MAX_CHARACTERS:
        raise Exceeded(f"keeps more than {MAX_CHARACTERS:,} characters")
    if isinstance(value, int) and value.bit_length() > 10_000:
        raise Exceeded("keeps a number that is too large")
    return value


def _replace(text: object, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    number = text.count(old) if count is None else min(count, text.count(old))
    if len(text) + number * len(new) > MAX_CHARACTERS:
        raise Exceeded(f"keeps more than {MAX_CHARACTERS:,} characters")
    return text.replace(old, new, number)


def _join(values: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    texts = [str(value if attribute is None else value[attribute]) for value in values]
    if sum(map(len, texts)) + len(between) * len(texts) > MAX_CHARACTERS:
        raise Exceeded(f"keeps more than {MAX_CHARACTERS:,} characters")
    return between.join(texts)


def _raise(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """JSON as transformers writes it: no HTML escapes, letters as they are."""
    if indent is not None and indent > 16:
        raise Exceeded("an indent of more than 16")
    known: dict[str, Any] = {"ensure_ascii": False}
    known |= {k: options[k] for k in ("ensure_ascii", "separators", "sort_keys") if k in options}
    return json.dumps(value, indent=indent, **known)
