"""What a server takes on: so many requests at once, so many that wait, so much of each."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from ownlm.server.errors import ApiError, ClientGone
from ownlm.server.mailbox import Gone, Granted, Mailbox

MAX_BODY_BYTES = 8_000_000
MAX_CONCURRENT = 64
MAX_QUEUE = 256
MAX_SECONDS = 600.0  # as long as the openai client waits
PING_SECONDS = 15.0  # proxies close a connection that is silent for 30 or 60 seconds


@dataclass(frozen=True)
class Limits:
    """Of a server.

    Args:
        body_bytes: of a request.
        concurrent: requests that are worked on at the same time.
        queue: further ones that wait; more are answered with 429.
        new_tokens: of an answer at most; None: what the window holds.
        seconds: for a request, waiting included.
        ping_seconds: silence of a stream after which a comment is sent.
    """

    body_bytes: int = MAX_BODY_BYTES
    concurrent: int = MAX_CONCURRENT
    queue: int = MAX_QUEUE
    new_tokens: int | None = None
    seconds: float = MAX_SECONDS
    ping_seconds: float = PING_SECONDS


class Gate:
    """Lets requests in, first come first served."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running = 0
        self.draining = False
        self._waiting: deque[Mailbox] = deque()
        self._seconds = 1.0  # that a request took lately, for Retry-After

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    async def enter(self, mailbox: Mailbox, deadline: float) -> None:
        """Wait for a turn; whoever got it calls `leave`.

        Args:
            mailbox: of the request, where it is also told that its client has gone.
            deadline: by `time.monotonic()`.

        Raises:
            ApiError: 429: the queue is full; 408: the time is over. ClientGone.
        """
        if self.draining:
            raise ApiError(503, "The server is stopping.", headers={"Retry-After": "5"})
        if self.running < self.limits.concurrent and not self._waiting:
            self.running += 1
            return
        if len(self._waiting) >= self.limits.queue:
            raise ApiError(
                429,
                f"{self.running} requests run and {self.waiting} wait: the queue is full. Try again later.",
                headers={"Retry-After": str(self._retry_after())},
            )
        self._waiting.append(mailbox)
        try:
            item = await mailbox.get(max(0.0, deadline - time.monotonic()))
        except BaseException:  # cancelled: a turn that came meanwhile goes to the next one
            self._give_up(mailbox)
            raise
        if isinstance(item, Granted):
            return
        self._give_up(mailbox)
        if isinstance(item, Gone):
            raise ClientGone
        raise too_long(self.limits)

    def _give_up(self, mailbox: Mailbox) -> None:
        if mailbox in self._waiting:
            self._waiting.remove(mailbox)
        else:  # its turn had come already
            self._next()

    def leave(self, seconds: float) -> None:
        """A request that ran for so long has ended."""
        self._seconds = 0.8 * self._seconds + 0.2 * seconds
        self._next()

    def _next(self) -> None:
        self.running -= 1
        while self._waiting and self.running < self.limits.concurrent:
            self.running += 1
            self._waiting.popleft().put(Granted())

    def _retry_after(self) -> int:
        """Seconds until a place in the queue may be free."""
        return max(1, min(60, round(self._seconds)))


def too_long(limits: Limits) -> ApiError:
    """The answer to a request whose time is over; to repeat it would take as long again."""
    return ApiError(
        408,
        f"The request took longer than {limits.seconds:g} seconds (ownlm serve --timeout).",
        headers={"x-should-retry": "false"},
    )
