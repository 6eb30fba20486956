"""The application: routes, their descriptions for /openapi.json, errors as clients expect them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ownlm.server import completions, operations, page, page_routes, tokens
from ownlm.server.access_log import AccessLog
from ownlm.server.call import Call, State, endpoint, json_response
from ownlm.server.chat import chat_completions
from ownlm.server.documents import search_documents
from ownlm.server.embeddings import embeddings
from ownlm.server.errors import ApiError
from ownlm.server.front import Access, Front, unexpected
from ownlm.server.schemas import schema
from ownlm.server.task_routes import TASKS, task

POSTS: dict[str, tuple[Callable[[Call], Awaitable[Response]], str]] = {
    "/v1/completions": (completions.completions, "Continue texts."),
    "/v1/chat/completions": (chat_completions, "Answer in a conversation."),
    "/v1/embeddings": (embeddings, "Texts as vectors."),
    "/tokenize": (tokens.tokenize, "A text as token ids."),
    "/detokenize": (tokens.detokenize, "Token ids as text."),
    **{f"/v1/tasks/{name}": (task(name), f"Do one task: {name}.") for name in TASKS},
    "/v1/tasks/search": (search_documents, "Answer from the documents of --documents."),
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
NO_TELEMETRY: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
STATUSES = {
    400: "a field that is wrong, or what does not fit",
    401: "no key, or one that is not known",
    403: "a host that is not allowed",
    404: "no such model",
    405: "another method",
    408: "it took too long",
    413: "too large",
    415: "not JSON",
    429: "the queue is full",
    503: "the server is stopping",
}


def build(state: State, access: Access, log: AccessLog) -> ASGIApp:
    """The application of a server.

    Args:
        state: its models and limits. access: who may ask. log: where requests are noted.
    """
    from ownlm import __version__

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        state.close()

    app = FastAPI(
        title="ownlm",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    for path, (handle, about) in POSTS.items():
        _add(app, path, endpoint(state, path, handle), "POST", about, _body(path))
    for path, answer, about, extra in page_routes.routes(state, access):
        _add(app, path, answer, "GET", about, extra)
    _add_questions(app, state)
    _add_errors(app)
    return Front(app, access, state.metrics, log)


def _add_questions(app: FastAPI, state: State) -> None:
    """The routes without a body."""

    async def list_models(request: Request) -> Response:
        return operations.list_models(state)

    async def one_model(request: Request) -> Response:
        return operations.one_model(state, request.path_params["name"])

    async def health(request: Request) -> Response:
        return operations.health(state)

    async def version(request: Request) -> Response:
        return operations.version()

    async def metrics(request: Request) -> Response:
        return operations.metrics(state)

    async def tokenizer_info(request: Request) -> Response:
        return tokens.tokenizer_info(state, request)

    async def index(request: Request) -> Response:
        return page.index(routes(app))

    async def page_file(request: Request) -> Response:
        return page.page_file(request.path_params["name"])

    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    _add(app, "/v1/models", list_models, "GET", "The served models.")
    _add(app, "/v1/models/{name:path}", one_model, "GET", "A served model.", {"parameters": [name]})
    _add(app, "/health", health, "GET", "200 while requests are answered.")
    _add(app, "/version", version, "GET", "The version of ownlm.")
    _add(app, "/metrics", metrics, "GET", "Counts and times for Prometheus.")
    _add(app, "/tokenizer_info", tokenizer_info, "GET", "What a client must know of the tokenizer.")
    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/page/{name:path}", page_file, methods=["GET", "HEAD"], include_in_schema=False)


def _add(
    app: FastAPI,
    path: str,
    handler: Callable[[Request], Awaitable[Response]],
    method: str,
    about: str,
    extra: dict[str, Any] | None = None,
) -> None:
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": what, "content": {"application/json": {"schema": ERROR}}}
        for status, what in STATUSES.items()
    }
    methods = [method, "HEAD"] if method == "GET" else [method]
    name = re.sub(r"\W+", "_", re.sub(r"\{(\w+)(:path)?\}", r"\1", path)).strip("_")
    app.add_api_route(
        path, handler, methods=methods[:1], summary=about, responses=errors, openapi_extra=extra, name=name,
        response_class=Response, operation_id=f"{method.lower()}_{name}",
    )  # fmt: skip
    if len(methods) > 1:
        app.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False)


def _body(path: str) -> dict[str, Any]:
    """How a request looks, from the table of fields."""
    found = schema(path)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(found)}}}}


def _inlined(found: dict[str, Any]) -> dict[str, Any]:
    """A schema without references: they would be looked for elsewhere in the document."""
    parts = found.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(parts[value["$ref"].rpartition("/")[2]])
            return {k: resolved(v) for k, v in value.items() if k != "discriminator"}
        return [resolved(one) for one in value] if isinstance(value, list) else value

    whole: dict[str, Any] = resolved(found)
    return whole


def routes(app: FastAPI) -> list[str]:
    """What can be asked: "POST /v1/completions", …"""
    found = []
    for path, methods in app.openapi()["paths"].items():
        found += [f"{method.upper()} {path}" for method in methods]
    return [*found, "GET /openapi.json"]


def _add_errors(app: FastAPI) -> None:
    async def api_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return json_response(error.body(), error.status, error.headers)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 404:
            told = ApiError(404, f"There is nothing here. What can be asked: {', '.join(routes(app))}.")
        elif error.status_code == 405:
            told = ApiError(405, f"{request.method} is not possible here: {headers.get('Allow', '')}.")
        else:
            told = ApiError(error.status_code, str(error.detail))
        return json_response(told.body(), told.status, headers)

    async def broken(request: Request, error: Exception) -> Response:
        told = unexpected(error, request.scope["ownlm.record"])
        return json_response(told.body(), told.status)

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, broken)
