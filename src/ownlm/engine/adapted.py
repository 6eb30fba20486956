"""An engine as the users of one adapter see it: the same weights, cache and queue, and requests that name the adapter."""

from __future__ import annotations

import dataclasses
from typing import Any

from ownlm.engine.engine import Engine
from ownlm.engine.requests import Request


class AdaptedEngine(Engine):
    """A view of an engine.

    Args:
        engine: does everything; other callers and other views may share it.
        adapter: the number, from `Engine.add_adapter`, of requests that name none.
    """

    def __init__(self, engine: Engine, adapter: int) -> None:
        self._engine, self.adapter = engine, adapter

    def __getattr__(self, name: str) -> Any:
        """State is the engine's own; asked for only what the view does not have."""
        if name == "_engine":  # while a copy is made
            raise AttributeError(name)
        return getattr(self._engine, name)

    def submit(self, request: Request) -> int:
        """See `Engine.submit`."""
        return self._engine.submit(
            request if request.adapter else dataclasses.replace(request, adapter=self.adapter)
        )
