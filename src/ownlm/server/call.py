"""One request of HTTP on its way: its body, its place in the queue, its client that may leave, its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ownlm.server.errors import CLIENT_CLOSED, ApiError, ClientGone
from ownlm.server.json_form import read_json, to_json
from ownlm.server.limits import Gate, Limits, too_long
from ownlm.server.mailbox import Gone, Mailbox
from ownlm.server.metrics import Metrics
from ownlm.server.record import Record
from ownlm.server.runs import RunFolder
from ownlm.server.schemas import checked
from ownlm.server.served import Models

if TYPE_CHECKING:
    from ownlm.server.documents import Documents

T = TypeVar("T")
TEXT_THREADS, TASK_THREADS = 2, 8  # the first compute, the second mostly wait for the engine


@dataclass
class State:
    """What all requests of a server share."""

    models: Models
    limits: Limits
    gate: Gate
    metrics: Metrics
    runs: RunFolder | None = None
    documents: Documents | None = None
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(TEXT_THREADS, thread_name_prefix="text")
    )
    task_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(TASK_THREADS, thread_name_prefix="task")
    )

    def close(self) -> None:
        """End the threads; those that still work are not waited for."""
        for driver in self.models.drivers:
            driver.stop()
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.task_threads.shutdown(wait=False, cancel_futures=True)


class Call:
    """A request that is worked on.

    Args:
        state: of the server.
        request: of starlette.
        route: as in the table of fields.
    """

    def __init__(self, state: State, request: Request, route: str) -> None:
        self.state, self.request, self.route = state, request, route
        self.record: Record = request.scope["ownlm.record"]
        self.mailbox = Mailbox()
        self.deadline = time.monotonic() + state.limits.seconds
        self.at_the_end: list[Callable[[], None]] = []
        self._entered: float | None = None
        self._watch: asyncio.Task[None] | None = None

    async def fields(self) -> dict[str, Any]:
        """The checked fields of the body."""
        body = await self._body()
        # From here on nothing is read but the end of the connection.
        self._watch = asyncio.create_task(self._watch_client())
        return await self.in_thread(lambda: checked(self.route, read_json(body)))

    async def _body(self) -> bytes:
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, f"The body is {kind[:80] or 'of no type'}; it must be application/json.")
        limit = self.state.limits.body_bytes
        if int(self.request.headers.get("content-length") or 0) > limit:
            raise _too_large(limit)
        data = bytearray()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + self.time_left):
                async for chunk in self.request.stream():
                    data += chunk
                    if len(data) > limit:
                        raise _too_large(limit)
        except ClientDisconnect:
            raise ClientGone from None
        except TimeoutError:
            raise too_long(self.state.limits) from None
        return bytes(data)

    async def _watch_client(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self.mailbox.put(Gone())

    @property
    def time_left(self) -> float:
        """Seconds."""
        return max(0.0, self.deadline - time.monotonic())

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Something that computes for a while, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.state.threads, work)

    async def enter(self) -> None:
        """Wait for a turn."""
        begin = time.monotonic()
        await self.state.gate.enter(self.mailbox, self.deadline)
        self._entered = time.monotonic()
        self.state.metrics.queued(self._entered - begin)

    async def news(self, *, ping: bool = False) -> Any:
        """The next item of the mailbox; None after a silence that asks for a sign of life (with `ping`).

        Raises:
            ClientGone. ApiError: 408: the time is over.
        """
        quiet = self.state.limits.ping_seconds
        item = await self.mailbox.get(min(quiet, self.time_left) if ping else self.time_left)
        if isinstance(item, Gone):
            raise ClientGone
        if item is None and (not ping or self.time_left <= 0):
            raise too_long(self.state.limits)
        return item

    def close(self) -> None:
        """The request has ended, in whatever way."""
        if self._watch is not None:
            self._watch.cancel()
        if self._entered is not None:
            self.state.gate.leave(time.monotonic() - self._entered)
            self._entered = None
        while self.at_the_end:
            self.at_the_end.pop()()


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit:,} bytes (ownlm serve --max-body-bytes).")


Handler = Callable[[Call], Awaitable[Response]]


def endpoint(state: State, route: str, handle: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler as FastAPI takes it."""
    from ownlm.server.streaming import EventStream

    async def answer(request: Request) -> Response:
        call = Call(state, request, route)
        open_still = False
        try:
            response = await handle(call)
            open_still = isinstance(response, EventStream)
            return response
        except ClientGone:
            call.record.finish = ["abandoned"]
            return Response(status_code=CLIENT_CLOSED)
        finally:
            if not open_still:  # a stream closes it at its own end
                call.close()

    return answer


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(to_json(value), status, headers, "application/json")
