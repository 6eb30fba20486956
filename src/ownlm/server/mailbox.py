"""Where a request of HTTP waits for news: of the engine, of its place in the queue, of its client."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from ownlm.server.driver import News


class Gone:
    """The client has left."""


class Granted:
    """The request has its turn."""


class Mailbox:
    """News for one request, taken in the event loop.

    A `Listener` of the driver: what is told in its thread is handed to the loop at once for all of a step.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[Any] = deque()
        self._waiting: asyncio.Future[None] | None = None

    def tell(self, news: list[News]) -> None:
        """Take news from another thread."""
        try:
            self._loop.call_soon_threadsafe(self._put_all, news)
        except RuntimeError:  # the loop has ended: nobody waits any more
            return

    def put(self, item: Any) -> None:
        """Take something from the loop's own thread."""
        self._put_all([item])

    def _put_all(self, items: list[Any]) -> None:
        self._items.extend(items)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self, timeout: float | None = None) -> Any:
        """The next item; None when nothing came for so many seconds."""
        if not self._items:
            self._waiting = self._loop.create_future()
            try:
                await asyncio.wait_for(self._waiting, timeout)
            except TimeoutError:
                return None
            finally:
                self._waiting = None
        return self._items.popleft()
