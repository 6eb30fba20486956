"""Server-sent events: data lines, comments that keep a connection open, errors within the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ownlm.console.errors import OwnlmError
from ownlm.server.errors import ApiError, ClientGone, from_ownlm
from ownlm.server.json_form import to_json

if TYPE_CHECKING:
    from ownlm.server.call import Call

READING_SECONDS = 30.0  # beyond the time of a request, for a client that reads slowly
PING, DONE = b": ping\n\n", b"data: [DONE]\n\n"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


def frame(value: Any) -> bytes:
    """An event."""
    return b"data: " + to_json(value) + b"\n\n"


class EventStream(Response):
    """Frames as they come.

    What goes wrong before the first one is answered with a status of its own; later it is told in the stream.

    Args:
        call: closed at the end.
        first: the first frame. rest: those after it.
    """

    def __init__(self, call: Call, first: bytes, rest: AsyncIterator[bytes]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._call, self._first, self._rest = call, first, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._call.time_left + READING_SECONDS):
                await self._send_all(send)
        except TimeoutError:  # without an end of the answer the server closes the connection
            self._call.record.finish = ["not read"]
        except (ClientGone, OSError):  # OSError: a server that tells it when something is sent
            self._call.record.finish = ["abandoned"]
        finally:
            self._call.close()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._send(send, self._first)
        try:
            async for data in self._rest:
                await self._send(send, data)
        except (ApiError, OwnlmError) as error:
            told = error if isinstance(error, ApiError) else from_ownlm(error)
            self._call.record.finish = ["error"]
            await self._send(send, frame(told.body()))
        await self._send(send, DONE)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def _send(send: Send, data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})
