"""Requests to the engine of a loaded model, all at the same time, with the events of each in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ownlm.engine.requests import Event, Request
    from ownlm.loaded import LoadedModel


def run_requests(loaded: LoadedModel, requests: Sequence[Request]) -> list[list[Event]]:
    """The events of every request.

    Raises:
        OwnlmError: one of them cannot go on; none of them does then.
    """
    engine = loaded.engine
    numbers: dict[int, int] = {}
    found: list[list[Event]] = [[] for _ in requests]
    try:
        for number, request in enumerate(requests):
            numbers[engine.submit(request)] = number
        while events := engine.step_for(numbers.keys()):
            for event in events:
                found[numbers[event.request_id]].append(event)
    finally:
        for request_id in numbers:
            engine.cancel(request_id)
    return found
