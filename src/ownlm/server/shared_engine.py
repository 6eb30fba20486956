"""The engine as task methods see it, in threads of their own: the driver's, behind the names of `Engine`."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Set
from typing import TYPE_CHECKING

from ownlm.console.errors import OwnlmError
from ownlm.engine.engine import Engine
from ownlm.server.driver import Driver, News
from ownlm.server.errors import ClientGone

if TYPE_CHECKING:
    from ownlm.engine.requests import Event, Request
    from ownlm.engine.scheduler import Usage


class SharedEngine(Engine):
    """For one thread: what it submits is computed together with everything else that the server does.

    Args:
        driver: steps the engine.
        adapter: of requests that name none.

    Attributes:
        prompt_tokens, new_tokens: counts of what was asked for and generated.
    """

    def __init__(self, driver: Driver, adapter: int = 0) -> None:
        self._driver, self.adapter = driver, adapter
        self._left = False
        engine = driver.engine
        self.backend, self.max_context, self.plan = engine.backend, engine.max_context, engine.plan
        self._news: queue.SimpleQueue[list[News]] = queue.SimpleQueue()
        self._open: dict[int, set[int]] = {}  # ticket -> its sequences that have not ended
        self._accepted: set[int] = set()  # tickets that the engine has accepted
        self._failures: dict[int, OwnlmError] = {}
        self._unread: list[Event] = []
        self.prompt_tokens = self.new_tokens = 0

    def tell(self, news: list[News]) -> None:
        """Take news from the driver's thread."""
        self._news.put(news)

    def leave(self) -> None:
        """Nobody wants what this thread computes: its next wait raises `ClientGone`."""
        self._left = True
        self._news.put([])

    def submit(self, request: Request) -> int:
        """As `Engine.submit`; the number is the driver's ticket."""
        if not request.adapter:
            request = dataclasses.replace(request, adapter=self.adapter)
        ticket = self._driver.submit(request, self)
        self._open[ticket] = set(range(request.settings.n))
        self.prompt_tokens += len(request.prompt_ids)
        while ticket not in self._accepted:
            self._raise_failure({ticket})
            self._read()
        self._accepted.discard(ticket)
        return ticket

    def step_for(self, request_ids: Set[int]) -> list[Event]:
        """As `Engine.step_for`."""
        while True:
            mine = [event for event in self._unread if event.request_id in request_ids]
            self._unread = [event for event in self._unread if event.request_id not in request_ids]
            if mine:
                return mine
            self._raise_failure(request_ids)
            if self._open.keys().isdisjoint(request_ids):
                return []
            self._read()

    def _raise_failure(self, tickets: Set[int]) -> None:
        for ticket in self._failures.keys() & tickets:
            raise self._failures.pop(ticket)

    def _read(self) -> None:
        """Wait for news and sort them."""
        news = self._news.get()
        if self._left:
            raise ClientGone
        for ticket, what in news:
            left = self._open.get(ticket)
            if left is None:  # was not wanted any more
                continue
            if what is None:
                self._accepted.add(ticket)
                continue
            error = what if isinstance(what, OwnlmError) else what.error
            if error is not None:
                self._failures[ticket] = error
                self.cancel(ticket)
                continue
            assert not isinstance(what, OwnlmError)
            self.new_tokens += what.token_id >= 0
            self._unread.append(dataclasses.replace(what, request_id=ticket))
            if what.finish_reason is not None:
                self._close(ticket, what.index)

    def _close(self, ticket: int, index: int | None) -> bool:
        left = self._open.get(ticket, set())
        meant = left & ({index} if index is not None else left)
        left -= meant
        if not left:
            self._open.pop(ticket, None)
        return bool(meant)

    def cancel(self, request_id: int, index: int | None = None) -> bool:
        """As `Engine.cancel`; whether something was left."""
        self._driver.cancel([request_id], index)
        self._unread = [e for e in self._unread if e.request_id != request_id or index not in (None, e.index)]
        return self._close(request_id, index)

    def longest(self, prompt_tokens: int) -> int:
        """As `Engine.longest`."""
        return self._driver.engine.longest(prompt_tokens)

    @property
    def busy(self) -> bool:
        """Whether this thread's requests have not ended."""
        return bool(self._open)

    @property
    def usage(self) -> Usage:
        """Of the engine as a whole."""
        return self._driver.engine.usage

    def step(self) -> list[Event]:
        """Nobody but the driver steps the engine."""
        raise OwnlmError("a shared engine is stepped by its driver.")
