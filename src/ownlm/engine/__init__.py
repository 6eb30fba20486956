"""Using a model: token ids and sampling settings in, events out. Knows nothing of text beyond token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ownlm.engine.requests import Event, Request, SamplingSettings

if TYPE_CHECKING:
    from ownlm.engine.engine import Engine

__all__ = ["Engine", "Event", "Request", "SamplingSettings"]


def __getattr__(name: str) -> Any:
    # torch takes a second or two: a wrong model name must be told before it is imported.
    if name == "Engine":
        from ownlm.engine.engine import Engine

        return Engine
    raise AttributeError(f"module 'ownlm.engine' has no attribute {name!r}")
