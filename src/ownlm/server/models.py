"""Opening what a server serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ownlm.console.errors import Refused, UsageError
from ownlm.server.call import State
from ownlm.server.driver import Driver
from ownlm.server.limits import Gate, Limits
from ownlm.server.metrics import Metrics
from ownlm.server.served import Models, Served, chat_template, check_names


def adapter_names(given: list[str]) -> dict[str, str]:
    """name -> folder of `--adapter NAME=FOLDER`.

    Raises:
        UsageError: no NAME=FOLDER, or a name twice.
    """
    found: dict[str, str] = {}
    for word in given:
        name, equals, folder = word.partition("=")
        if not equals or not name or not folder:
            raise UsageError(
                f"{word!r} is not NAME=FOLDER.", where="--adapter", do="--adapter french=runs/french"
            )
        if name in found:
            raise UsageError(f"the name {name!r} is given twice.", where="--adapter")
        found[name] = folder
    return found


def open_state(
    path: Path,
    *,
    name: str,
    adapters: dict[str, str],
    chat_template: str | None,
    limits: Limits,
    metrics_prefix: str = "ownlm",
    max_context: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> State:
    """The models of a server, opened.

    Args:
        path: of the model. name: what requests call it. adapters: name -> folder of adapters over it.
        chat_template: as in `find_template`.

    Raises:
        Refused, UsageError: as `ownlm.load`.
    """
    from ownlm.loaded import load

    check_names([name, *adapters])
    loaded: Any = load(path, device=device, dtype=dtype, max_context=max_context)
    return state_of(
        loaded,
        name=name,
        adapters=adapters,
        template=chat_template,
        limits=limits,
        metrics_prefix=metrics_prefix,
    )


def state_of(
    loaded: Any,
    *,
    name: str,
    adapters: dict[str, str] | None = None,
    template: str | None = None,
    limits: Limits | None = None,
    metrics_prefix: str = "ownlm",
) -> State:
    """The state of a server for a model that is open."""
    limits, metrics = limits or Limits(), Metrics(metrics_prefix)
    base = getattr(loaded, "base", loaded)  # of an adapter: its base's engine is the one that is driven
    engine = engine_of(base)
    driver = Driver(engine, metrics.step) if engine is not None else None
    models = [Served(name, loaded, driver, chat_template(loaded, template), adapter_number(loaded))]
    if adapters and driver is None:
        raise Refused("this model generates nothing that an adapter could change.", where="--adapter")
    for other, folder in (adapters or {}).items():
        found = base.with_adapter(folder)
        own = chat_template(found, template)
        models.append(Served(other, found, driver, own, adapter_number(found), parent=name))
    return State(Models(models), limits, Gate(limits), metrics)


def engine_of(loaded: Any) -> Any:
    """The engine of a model that generates, or None."""
    try:
        return loaded.engine
    except (Refused, AttributeError):
        return None


def adapter_number(loaded: Any) -> int:
    """The number of a model's adapter in the engine; 0: none."""
    return int(getattr(engine_of(loaded), "adapter", 0))
