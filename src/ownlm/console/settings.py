"""A verb is a plain function; its signature is its settings: checked once, for the CLI, YAML and Python alike.

`@verb` turns the signature into a pydantic model with `extra="forbid"`. The order of precedence is
arguments given > settings file (`-c file.yaml`, `config=`) > defaults in the signature.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from ownlm.console.errors import UsageError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")

# Names people bring from other tools; accepted with a notice, never written (research: one concept, seven names).
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
        known = dict(kwargs)
        for given in [name for name in known if name not in signature.parameters]:
            known[canonical(given, signature.parameters)] = known.pop(given)
        try:
            bound = signature.bind_partial(*args, **known)
        except TypeError as error:
            raise UsageError(f"{function.__name__}: {error}.") from None
        settings = resolve(function, dict(bound.arguments))
        return function(**settings)  # type: ignore[call-arg]

    checked.__ownlm_function__ = function  # type: ignore[attr-defined]
    return checked


def canonical(name: str, parameters: Mapping[str, Any]) -> str:
    """The setting a name stands for: itself, or what an alias from another tool means here."""
    name = name.replace("-", "_")
    if name in parameters:
        return name
    if ALIASES.get(name) in parameters:
        return ALIASES[name]
    close = did_you_mean(name, list(parameters))
    raise UsageError(f'unknown setting "{name}".{close}')


def resolve(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge given arguments, the settings file and defaults; convert and check types.

    Args:
        function: the plain verb function.
        given: the arguments that were really given.

    Returns:
        Every parameter of the function with its final value.

    Raises:
        UsageError: an unknown setting, a wrong value, a settings file that is not YAML.
    """
    parameters = inspect.signature(function).parameters
    merged: dict[str, Any] = {}
    config = given.get("config")
    if config is not None and "config" in parameters:
        merged.update(read_settings_file(Path(os.fspath(config)), parameters))
    merged.update(given)
    for name, value in list(merged.items()):
        if isinstance(value, (str, os.PathLike)) and _is_list(_hints(function)[name]):
            merged[name] = [value]
    return _validate(function, merged)


def read_settings_file(path: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a YAML file, names checked against the verb's parameters (errors name the line)."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise UsageError("no such settings file.", where=path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"not a YAML file: {' '.join(str(error).split())}", where=path) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError("a settings file holds `name: value` lines.", where=path)
    settings: dict[str, Any] = {}
    for key, value in content.items():
        line = next((i for i, l in enumerate(text.splitlines(), 1) if re.match(rf"['\"]?{re.escape(str(key))}\b", l)), 0)
        try:
            name = canonical(str(key), parameters)
        except UsageError as error:
            raise UsageError(error.what, where=f"{path}:{line}") from None
        if name == "config":
            raise UsageError("a settings file cannot name another one.", where=f"{path}:{line}")
        if name in settings:
            raise UsageError(f'"{name}" is set twice (aliases count).', where=f"{path}:{line}")
        settings[name] = value
    return settings


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function, include_extras=True)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(get_origin(a) is list for a in get_args(annotation))


@functools.cache
def _model(function: Callable[..., Any]) -> Any:
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {}
    hints = _hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[f"p_{name}"] = (hints[name], default)  # prefixed: pydantic reserves names such as model_*, copy
    return create_model(
        function.__name__,
        __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()),
        **fields,
    )


def _validate(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    from pydantic import ValidationError

    try:
        model = _model(function).model_validate({f"p_{name}": value for name, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).removeprefix("p_")
        if first["type"] == "missing":
            raise UsageError(f"{function.__name__} needs {name.upper()}.", do=f"ownlm {_cli(function)} --help") from None
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        shown = values.get(name)
        raise UsageError(
            f"{message}, not {shown!r}.", where=f"--{name.strip('_').replace('_', '-')}", do=f"ownlm {_cli(function)} --help"
        ) from None
    return {name: getattr(model, f"p_{name}") for name in inspect.signature(function).parameters}


def _cli(function: Callable[..., Any]) -> str:
    return function.__name__.strip("_").replace("_", "-")
