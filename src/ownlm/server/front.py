"""What stands before every route: names of hosts, keys, an id for each request, the access log, errors as JSON."""

from __future__ import annotations

import hmac
import ipaddress
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ownlm.console import output as out
from ownlm.server.access_log import AccessLog
from ownlm.server.call import json_response
from ownlm.server.errors import ApiError
from ownlm.server.metrics import Metrics
from ownlm.server.record import Record

OPEN_ROUTES = ("/", "/health")  # without a key; so are the files of the page
REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,100}", re.ASCII)


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Args:
        keys: name -> key; empty: everybody who reaches the server.
        hosts: names in the header Host beside addresses and localhost; "*": any.
        origins: pages of other servers that may ask from a browser; "*": any.
        open_prefix: paths of the page's files.
    """

    keys: Mapping[str, str]
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    open_prefix: str = "/page/"


class Front:
    """ASGI middleware.

    Args:
        app: with the routes.
    """

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics, log: AccessLog) -> None:
        self._app, self._access, self._metrics, self._log = app, access, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        if len(scope["path"]) > 1:
            scope["path"] = scope["path"].rstrip("/") or "/"
        headers = Headers(scope=scope)
        record = Record()
        if REQUEST_ID.fullmatch(headers.get("x-request-id", "")):
            record.id = headers["x-request-id"]
        scope["ownlm.record"] = record
        origin = self._origin(headers)
        status = 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["x-request-id"] = record.id
                answer["x-content-type-options"] = "nosniff"
                if origin is not None:
                    answer["access-control-allow-origin"] = origin
                    answer["access-control-expose-headers"] = "x-request-id, retry-after"
                    answer.add_vary_header("origin")
            await send(message)

        try:
            await self._guarded(scope, headers, record, origin, receive, sent)
        finally:
            self._metrics.answered(status, record.seconds)
            self._log.write(scope, record, status)

    async def _guarded(
        self, scope: Scope, headers: Headers, record: Record, origin: str | None, receive: Receive, send: Send
    ) -> None:
        try:
            self._check_host(headers)
            if scope["method"] == "OPTIONS":
                return await self._preflight(headers, origin)(scope, receive, send)
            self._check_key(scope, headers, record)
            await self._app(scope, receive, send)
        except ApiError as error:
            await json_response(error.body(), error.status, error.headers)(scope, receive, send)
        except Exception:
            if not record.broken:  # starlette raises again what it has answered
                raise

    def _check_host(self, headers: Headers) -> None:
        """A page of somebody else whose name points here (DNS rebinding) comes with that name."""
        host = headers.get("host", "")
        name = re.sub(r":\d+$", "", host).strip("[]").rstrip(".").lower()
        if "*" in self._access.hosts or name in self._access.hosts:
            return
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return
        raise ApiError(
            403,
            f"Requests to the host {name[:100]!r} are not answered (ownlm serve --allow-host NAME).",
            code="foreign_host",
        )

    def _check_key(self, scope: Scope, headers: Headers, record: Record) -> None:
        path = scope["path"]
        if not self._access.keys or path in OPEN_ROUTES or path.startswith(self._access.open_prefix):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        found = None
        for name, key in self._access.keys.items():  # all of them: the time tells nothing
            if hmac.compare_digest(key.encode(), given.strip().encode("utf-8", "replace")):
                found = name
        if scheme.lower() != "bearer" or found is None:
            what = (
                "This key is not known."
                if given
                else "A key is needed: the header Authorization: Bearer KEY."
            )
            raise ApiError(401, what, headers={"WWW-Authenticate": "Bearer"})
        record.key = found

    def _origin(self, headers: Headers) -> str | None:
        """The origin that may read the answer, or None."""
        origin = headers.get("origin")
        allowed = self._access.origins
        return origin if origin is not None and (origin in allowed or "*" in allowed) else None

    @staticmethod
    def _preflight(headers: Headers, origin: str | None) -> ASGIApp:
        from starlette.responses import Response

        answer = Response(status_code=204, headers={"allow": "GET, HEAD, POST, OPTIONS"})
        if origin is not None and "access-control-request-method" in headers:
            answer.headers["access-control-allow-methods"] = "GET, POST"
            answer.headers["access-control-allow-headers"] = "authorization, content-type, x-request-id"
            answer.headers["access-control-max-age"] = "600"
        return answer


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def unexpected(error: Exception, record: Record) -> ApiError:
    """The answer to an error nobody foresaw; what it was stands in the server's words alone."""
    record.broken = True
    out.warn(f"request {record.id}:\n" + "".join(traceback.format_exception(error)))
    return ApiError(
        500, f"Something broke in the server. Its words on standard error name the request {record.id}."
    )
