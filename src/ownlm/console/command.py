"""A click command made from a plain function: options from its signature, help from its docstring.

Parameters before `*` become arguments, the others options. A parameter's help is its line in the docstring's
`Args:` section; the text before that section is the command's description. Nothing is required here: a
settings file may give it, so what is missing is found after that file was read (`console.settings`).
"""

from __future__ import annotations

import glob
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from ownlm.console import output
from ownlm.console.settings import ALIASES, ARGUMENTS, parameter_hints

SHORT = {"output": "-o", "config": "-c", "rows": "-n"}
# Their type is text, because a name such as `last` or a hub name is allowed too; the shell completes files.
PATH_NAMES = {
    "sources",
    "source",
    "corpus",
    "run",
    "model",
    "from_",
    "validation",
    "tokenizer",
    "text",
    "texts",
}
METAVARS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
WIDTH = 100

_GIVEN = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)


class VerbCommand(click.Command):
    """A command whose help lists the arguments too, and that takes the option names of other tools."""

    argument_rows: list[tuple[str, str]]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._own_names(args)))

    def _own_names(self, args: list[str]) -> Iterator[str]:
        """`--max_steps` and `--lr` as `--max-steps` and `--learning-rate`; what follows `--` is text."""
        known = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        words = iter(args)
        for word in words:
            if word == "--":
                yield word
                break
            name, equals, value = word.partition("=")
            if not name.startswith("--") or name in known:
                yield word
                continue
            setting = name[2:].replace("-", "_")
            meant = option_name(ALIASES.get(setting, setting))
            if setting in ALIASES and meant in known:
                output.say(f"{name} is called {meant} here.")
            yield (meant if meant in known else name) + equals + value
        yield from words

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.argument_rows:
            with formatter.section("Arguments"):
                formatter.write_dl(self.argument_rows)
        super().format_options(ctx, formatter)


def build(function: Callable[..., Any], invoke: Callable[[dict[str, Any]], None], name: str) -> VerbCommand:
    """The click command of a verb.

    Args:
        function: the plain function (undecorated).
        invoke: called with the arguments that were really given.
        name: what is typed.
    """
    description, helps = docstring_parts(function)
    hints = parameter_hints(function)
    parameters: list[click.Parameter] = []
    rows: list[tuple[str, str]] = []
    for parameter in inspect.signature(function).parameters.values():
        help_text = _capitalised(helps.get(parameter.name, ""), hints[parameter.name])
        made = _parameter(parameter, hints[parameter.name], help_text)
        parameters.append(made)
        if isinstance(made, click.Argument):
            rows.append((made.metavar or parameter.name, help_text))

    def callback(**_: Any) -> None:
        context = click.get_current_context()
        given = {}
        for parameter in context.command.params:
            name = parameter.name or ""
            value = context.params.get(name)
            if context.get_parameter_source(name) in _GIVEN and value != ():
                given[name] = list(value) if isinstance(value, tuple) else value
        invoke(given)

    command = VerbCommand(
        name,
        params=parameters,
        callback=callback,
        help=description,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    )
    command.argument_rows = rows
    return command


def docstring_parts(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """(description, {parameter: help}) of a docstring with a Google-style `Args:` section."""
    text = inspect.getdoc(function) or ""
    description, _, rest = text.partition("\nArgs:\n")
    section = re.split(r"\n(?:Returns|Raises|Yields|Example):\n", rest)[0]
    description = re.split(r"\n(?:Returns|Raises|Yields|Example):\n", description)[0]
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


def _capitalised(text: str, annotation: Any) -> str:
    """A sentence begins with a capital, but a value that is typed (`bpe`, `hash:0.05`) stays as it is."""
    first = re.match(r"[^\s,;]*", text)
    word = first[0] if first else ""
    typed = not word.isalpha() or word in get_args(annotation)
    return text if typed else text[:1].upper() + text[1:]


def option_name(name: str) -> str:
    """`max_steps` -> `--max-steps`, `from_` -> `--from`."""
    return "--" + name.strip("_").replace("_", "-")


def _parameter(parameter: inspect.Parameter, annotation: Any, help_text: str) -> click.Parameter:
    name, default = parameter.name, parameter.default
    kind, many = _kind(annotation, name)
    needed = default is inspect.Parameter.empty
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        metavar = _argument_metavar(name, many, needed)
        return click.Argument(
            [name], type=_click_type(kind), nargs=-1 if many else 1, required=False, metavar=metavar
        )
    if kind is bool:
        return _flag(name, default, help_text)
    declarations = [SHORT[name]] if name in SHORT else []
    notes = ["required"] if needed else []
    if not needed and default not in (None, "") and default != []:
        shown = ", ".join(map(str, default)) if isinstance(default, list) else default
        notes.append(f"default: {shown}")
    if many and "repeated" not in help_text:
        notes.append("may be repeated")
    return click.Option(
        [*declarations, option_name(name), name],
        type=_click_type(kind),
        multiple=many,
        metavar=METAVARS.get(kind) if isinstance(kind, type) else None,
        help=f"{help_text}  [{'; '.join(notes)}]" if notes else help_text,
    )


def _flag(name: str, default: Any, help_text: str) -> click.Option:
    """`--x`, or `--x/--no-x` where leaving it out does not mean no."""
    declaration = option_name(name)
    if default is not False:
        declaration += f"/--no-{option_name(name)[2:]}"
        help_text += "  [default: yes]" if default is True else ""
    return click.Option([declaration, name], is_flag=True, default=None, help=help_text, show_default=False)


def _argument_metavar(name: str, many: bool, needed: bool) -> str:
    word = name.strip("_").upper()
    if many and word.endswith("S"):
        word = word[:-1]
    word = ARGUMENTS.get(name, word)
    word = word + "…" if many else word
    return word if needed else f"[{word}]"


def _kind(annotation: Any, name: str) -> tuple[Any, bool]:
    """(type of one value, may be repeated) for an annotation such as `int | None` or `list[str]`.

    A union such as `int | str` is read as text: the verb's own check decides what it was.
    """
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0], name)
    if get_origin(annotation) is list:
        return _kind(get_args(annotation)[0], name)[0], True
    if get_origin(annotation) is Literal:
        return annotation, False
    options = [option for option in get_args(annotation) if option is not type(None)]
    if len(options) == 1:
        return _kind(options[0], name)
    if annotation in (int, float, bool, Path):
        return annotation, False
    if Path in options and any(get_origin(option) is Literal for option in options):
        return annotation, False
    if any(get_origin(option) is list for option in options):
        return _kind(next(option for option in options if get_origin(option) is list), name)
    return (Path if name in PATH_NAMES or Path in options else str), False


def _click_type(kind: Any) -> Any:
    if kind is Path:
        return click.Path()  # completes file names; whether the file exists is the verb's message
    if get_origin(kind) is Literal:
        return click.Choice([str(choice) for choice in get_args(kind)])
    if Path in get_args(kind):
        return WordOrPath([word for option in get_args(kind) for word in get_args(option)])
    return kind


class WordOrPath(click.Path):
    """A path, or one of a few words, which completion shows beside the folders."""

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.words = words

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        words = [word for word in self.words if word.startswith(incomplete)]
        if not words:
            return super().shell_complete(ctx, param, incomplete)
        # A shell that is told to complete paths itself drops the words: the folders are named here.
        folders = (path for path in Path().glob(glob.escape(incomplete) + "*") if path.is_dir())
        shown = [f"{path}/" for path in sorted(folders) if not path.name.startswith(".")]
        return [CompletionItem(word) for word in words + shown]
