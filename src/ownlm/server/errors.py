"""Errors as clients expect them: {"error": {message, type, param, code}}, with a status that says whether to try again.

Clients repeat a request after 408, 409, 429 and every 5xx: what would fail again must have another status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ownlm.console.errors import OwnlmError

MAX_MESSAGE, MAX_PARAM = 1000, 200  # characters: an error stays below 8 KB whatever a request holds
CLIENT_CLOSED = 499  # nginx's number: nobody reads the answer

KINDS = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("not_found_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("timeout_error", "timeout"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    429: ("rate_limit_error", "queue_full"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "unavailable"),
}


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: what is wrong and what helps.
        param: the field that is meant.
        code: a word for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.kind, usual = KINDS.get(status, ("invalid_request_error", None))
        self.code = code or usual
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What is sent."""
        message = self.message if len(self.message) <= MAX_MESSAGE else self.message[:MAX_MESSAGE] + " …"
        param = None if self.param is None else self.param[:MAX_PARAM]
        return {"error": {"message": message, "type": self.kind, "param": param, "code": self.code}}


class ClientGone(Exception):
    """The client has closed its connection: nobody waits for the answer."""


NAMES = {"min_new_tokens": "min_tokens", "max_new_tokens": "max_tokens", "cache_memory": None}


def from_ownlm(error: OwnlmError, param: str | None = None) -> ApiError:
    """An error of the package as an answer: what can be done about it is in the request, so 400.

    The command that would help is left out: whoever sends requests types no commands.
    """
    where = str(error.where) if error.where is not None else None
    named = NAMES.get(where, where) if where and where.isidentifier() else None
    text = error.what if named or where is None or param else f"{where}: {error.what}"
    return ApiError(400, f"{text} {error.why}".strip(), param=param or named)
