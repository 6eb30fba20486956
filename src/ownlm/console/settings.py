"""A verb is a plain function; its signature is its settings, checked once for CLI, YAML and Python alike.

`@verb` turns the signature into a pydantic model with `extra="forbid"`. The order of precedence is
arguments given > settings file (`-c file.yaml`, `config=`) > defaults in the signature.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from ownlm.console import output
from ownlm.console.errors import UsageError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")

_given: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())

MAX_SETTINGS_BYTES = 2**20

ARGUMENTS = {"sources": "SRC"}  # what help calls them, where it is not the name in capitals

# Names people bring from other tools: accepted with a notice, never written.
ALIASES = {
    "batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "block_size": "context",
    "seq_len": "context",
    "sequence_len": "context",
    "max_iters": "max_steps",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "lr": "learning_rate",
    "output_dir": "output",
    "out_dir": "output",
    "resume_from_checkpoint": "resume",
    "max_tokens": "max_new_tokens",
    "n_samples": "num_return_sequences",
}


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a verb against its signature; unknown or wrong ones raise `UsageError`.

    A parameter named `config` (Path or None), when the verb has one, is the settings file.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        known: dict[str, Any] = {}
        for given, value in kwargs.items():
            name = canonical(given, signature.parameters)
            if name in known:
                raise UsageError(f'"{name}" is given twice (aliases count).')
            known[name] = value
        try:
            bound = signature.bind_partial(*args, **known)
        except TypeError as error:
            raise UsageError(f"{function.__name__}: {error}.", do=_help_command(function)) from None
        settings, names = resolve(function, dict(bound.arguments))
        before = _given.set(names)
        try:
            return function(**settings)  # type: ignore[call-arg]
        finally:
            _given.reset(before)

    checked.__ownlm_function__ = function  # type: ignore[attr-defined]
    return checked


def canonical(name: str, parameters: Mapping[str, Any], where: str = "") -> str:
    """The setting a name stands for: itself, or what an alias from another tool means (said in a notice).

    Raises:
        UsageError: neither; the closest setting is named.
    """
    plain = name.replace("-", "_")
    for candidate in (plain, plain + "_"):  # `from` is written `from_` in Python
        if candidate in parameters:
            return candidate
    meant = ALIASES.get(plain, "")
    if meant in parameters:
        output.say(f"{where}: {name} is called {meant} here." if where else f"{name} is called {meant} here.")
        return meant
    known = [parameter.strip("_") for parameter in parameters]
    raise UsageError(f'unknown setting "{name}".{did_you_mean(plain, known)}', where=where or None)


def given_settings() -> frozenset[str]:
    """The settings of the running verb that were given, in its arguments or the settings file, even with their default.

    None and an empty list leave a setting to its default, so they do not count.
    """
    return _given.get()


def resolve(function: Callable[..., Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """Merge given arguments, the settings file and defaults; convert and check types.

    Args:
        function: the plain verb function.
        given: the arguments that were really given.

    Returns:
        Every parameter of the function with its final value, and the names of those that were given.

    Raises:
        UsageError: an unknown setting, a wrong value, a settings file that is not YAML.
    """
    parameters = inspect.signature(function).parameters
    merged: dict[str, Any] = {}
    places: dict[str, str] = {}
    config = given.get("config")
    if config is not None and "config" in parameters:
        for name, setting in read_settings_file(Path(os.fspath(config)), parameters).items():
            merged[name], places[name] = setting.value, setting.where
    for name, value in given.items():
        merged[name] = value
        places.pop(name, None)
    for name, value in list(merged.items()):
        hint = parameter_hints(function)[name]
        if hint is Any:  # the verb looks itself: an open model has a path too, and is more than that
            continue
        if isinstance(value, (str, os.PathLike)) and _is_list(hint):
            value = [value]
        merged[name] = (
            [_plain_path(v) for v in value] if isinstance(value, (list, tuple)) else _plain_path(value)
        )
    names = (
        n for n, value in merged.items() if value is not None and not (isinstance(value, list) and not value)
    )
    return _validate(function, merged, places), frozenset(names)


def _plain_path(value: Any) -> Any:
    """A corpus or run that was handed over stands for its folder; pydantic takes text and `Path` alone."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class Setting(NamedTuple):
    """A value from a settings file and the `file:line` it stands on."""

    value: Any
    where: str


def read_settings_file(path: Path, parameters: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings in a YAML file, names checked against the verb's parameters.

    Raises:
        UsageError: with `file:line`, for anything that is not a known `name: value`.
    """
    import yaml

    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise UsageError(f"larger than {MAX_SETTINGS_BYTES >> 10} KiB: not a settings file.", where=path)
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
        root = loader.get_single_node()
    except OSError as error:
        raise UsageError(f"the settings file cannot be read: {error.strerror}.", where=path) from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"not YAML: {error.problem}.", where=f"{path}{line}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"not a YAML file: {' '.join(str(error).split())}.", where=path) from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(
            "a settings file holds `name: value` lines.", where=f"{path}:{root.start_mark.line + 1}"
        )
    settings: dict[str, Setting] = {}
    for key, node in root.value:
        where = f"{path}:{key.start_mark.line + 1}"
        name = canonical(str(key.value), parameters, where)
        if name == "config":
            raise UsageError("a settings file cannot name another one.", where=where)
        if name in settings:
            raise UsageError(f'"{name}" is set twice (aliases count).', where=where)
        try:
            settings[name] = Setting(loader.construct_object(node, deep=True), where)
        except yaml.YAMLError as error:
            raise UsageError(f"not a plain value: {' '.join(str(error).split())}.", where=where) from None
    return settings


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["num_hidden_layers=2", "rope_theta=1e4"]` -> `{"num_hidden_layers": 2, "rope_theta": 10000.0}`.

    Values are read as YAML scalars; whether a name is known is the caller's check.

    Raises:
        UsageError: no `=`, no name, a value that is not YAML, a name given twice.
    """
    import yaml

    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(
                f'"{assignment}" is not name=value.', where="--set", do="--set num_hidden_layers=2"
            )
        if name in values:
            raise UsageError(f'"{name}" is given twice.', where="--set")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f'the value in "{assignment}" cannot be read.', where="--set") from None
        values[name] = _number(value) if isinstance(value, str) else value
        if isinstance(values[name], float) and not math.isfinite(values[name]):
            raise UsageError(f'the value in "{assignment}" is not a finite number.', where="--set")
    return values


def _number(text: str) -> str | float:
    """YAML 1.1 reads `3e-4` as text; whoever types it means a number."""
    return float(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", text) else text


@functools.cache
def parameter_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's parameters; its return type may be one that only type checkers import."""
    stand_in = types.FunctionType(function.__code__, function.__globals__)
    stand_in.__annotations__ = {k: v for k, v in function.__annotations__.items() if k != "return"}
    return get_type_hints(stand_in, include_extras=True)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(get_origin(a) is list for a in get_args(annotation))


def _is_bool(annotation: Any) -> bool:
    return annotation is bool or annotation is Any or any(_is_bool(a) for a in get_args(annotation))


@functools.cache
def _model(function: Callable[..., Any]) -> Any:
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {}
    hints = parameter_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[f"p_{name}"] = (
            hints[name],
            default,
        )  # prefixed: pydantic reserves names such as model_*, copy
    forbid = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=()
    )
    return create_model(function.__name__, __config__=forbid, **fields)


def _validate(
    function: Callable[..., Any], values: Mapping[str, Any], places: Mapping[str, str]
) -> dict[str, Any]:
    """The values converted to the types of the signature; errors name the option, argument or file:line."""
    from pydantic import ValidationError

    parameters = inspect.signature(function).parameters
    for name, value in values.items():
        if isinstance(value, bool) and not _is_bool(
            parameter_hints(function)[name]
        ):  # pydantic would take 1 or 0
            raise UsageError(
                f"{value} is not a value of {name}.", where=places.get(name) or _shown(parameters[name])
            )
    try:
        model = _model(function).model_validate({f"p_{name}": value for name, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        parameter = parameters[str(first["loc"][0]).removeprefix("p_")]
        if first["type"] == "missing":
            raise UsageError(
                f"{_verb_name(function)} needs {_shown(parameter)}.", do=_help_command(function)
            ) from None
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        message = re.sub("^Input should be", "should be", message)
        where, value = places.get(parameter.name), values.get(parameter.name)
        raise UsageError(
            f"{message}, not {value!r}." if where is None else f"{parameter.name} {message}, not {value!r}.",
            where=where or _shown(parameter),
            do=_help_command(function),
        ) from None
    return {name: getattr(model, f"p_{name}") for name in parameters}


def _shown(parameter: inspect.Parameter) -> str:
    """A parameter as the person wrote it: `CORPUS` and `--max-steps` in a shell, `max_steps` in Python."""
    name = parameter.name.strip("_")
    if not output.from_cli():
        return parameter.name
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        return "--" + name.replace("_", "-")
    return ARGUMENTS.get(name, name.upper())


def _verb_name(function: Callable[..., Any]) -> str:
    return function.__name__.strip("_").replace("_", "-")


def _help_command(function: Callable[..., Any]) -> str:
    if output.from_cli():
        return f"ownlm {_verb_name(function)} --help"
    return f"help(ownlm.{function.__name__})"
