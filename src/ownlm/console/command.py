"""A click command made from a plain function: options from its signature, help from its docstring.

Parameters before `*` become arguments, the others options. A parameter's help is its line in the docstring's
`Args:` section; the text before that section is the command's description.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click

SHORT = {"output": "-o", "config": "-c", "quiet": "-q"}
PATH_NAMES = {"output", "config", "sources", "source", "corpus", "run", "model", "from_", "validation", "tokenizer"}


def build(function: Callable[..., Any], invoke: Callable[[dict[str, Any]], None], name: str) -> click.Command:
    """The click command of a verb.

    Args:
        function: the plain function (undecorated).
        invoke: called with the arguments that were really given.
        name: what is typed.
    """
    description, helps = docstring_parts(function)
    hints = get_type_hints(function, include_extras=True)
    parameters: list[click.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        parameters.append(_parameter(parameter, hints[parameter.name], helps.get(parameter.name, "")))

    def callback(**_: Any) -> None:
        context = click.get_current_context()
        given = {}
        for parameter in context.command.params:
            if context.get_parameter_source(parameter.name or "") in _GIVEN:
                value = context.params[parameter.name or ""]
                given[parameter.name or ""] = list(value) if isinstance(value, tuple) else value
        invoke(given)

    return click.Command(
        name,
        params=parameters,
        callback=callback,
        help=description,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


_GIVEN = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)


def docstring_parts(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """(description, {parameter: help}) of a docstring with a Google-style `Args:` section."""
    text = inspect.getdoc(function) or ""
    description, _, rest = text.partition("\nArgs:\n")
    section = re.split(r"\n(?:Returns|Raises|Yields|Example):\n", rest)[0]
    helps: dict[str, str] = {}
    current = ""
    for line in section.splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            current = start[1]
            helps[current] = start[2]
        elif current and line.strip():
            helps[current] += " " + line.strip()
    return description.strip(), helps


def option_name(name: str) -> str:
    """`max_steps` -> `--max-steps`, `from_` -> `--from`."""
    return "--" + name.strip("_").replace("_", "-")


def _parameter(parameter: inspect.Parameter, annotation: Any, help_text: str) -> click.Parameter:
    name, default = parameter.name, parameter.default
    kind, many = _click_type(annotation, name)
    required = default is inspect.Parameter.empty
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        return click.Argument([name], type=kind, nargs=-1 if many else 1, required=required, metavar=_metavar(name, many, required))
    declarations = [option_name(name), name]
    if name in SHORT:
        declarations.insert(0, SHORT[name])
    if kind is bool:
        off = "--no-" + option_name(name)[2:]
        flags = f"{option_name(name)}/{off}" if default is True else option_name(name)
        return click.Option([flags, name], is_flag=True, default=bool(default), help=help_text, show_default=False)
    shown = None if default in (None, "", False) or default == [] else str(default)
    return click.Option(declarations, type=kind, multiple=many, required=required, default=None, help=help_text, show_default=shown or False)


def _metavar(name: str, many: bool, required: bool) -> str:
    word = name.strip("_").upper()
    if many and word.endswith("S"):
        word = word[:-1]
    word = {"SOURCE": "SRC"}.get(word, word)
    word = word + "…" if many else word
    return word if required else f"[{word}]"


def _click_type(annotation: Any, name: str) -> tuple[Any, bool]:
    """(click type, may be repeated) for an annotation such as `int | None` or `list[str]`."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    options = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) in (Union, type(int | str)):
        annotation = options[0] if len(options) == 1 else str  # e.g. int | str: the verb's own check decides
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is list:
        return _click_type(get_args(annotation)[0], name)[0], True
    if get_origin(annotation) is Literal:
        return click.Choice([str(c) for c in get_args(annotation)]), False
    if annotation in (int, float, bool):
        return annotation, False
    if name in PATH_NAMES:
        return click.Path(), False  # completes file names in the shell; existence is the verb's message
    return str, False
