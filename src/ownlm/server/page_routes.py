"""What the page asks beside the routes of clients: whether a key is needed, what tasks there are, the runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from ownlm.server.call import State, json_response
from ownlm.server.errors import ApiError
from ownlm.server.front import Access
from ownlm.server.page import HEADERS
from ownlm.server.runs import RunFolder
from ownlm.server.served import Served
from ownlm.server.task_routes import TASKS

Handler = Callable[[Request], Awaitable[Response]]
# A report is a page of its own that may come from a folder of somebody else: it gets no scripts, no forms, and, being
# of no origin, nothing of this one, such as the key.
REPORT_POLICY = "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
RUN = {"name": "run", "in": "path", "required": True, "schema": {"type": "string"}}
AFTER = {
    "name": "after",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0, "default": 0},
    "description": "the next of the answer before",
}


def routes(state: State, access: Access) -> list[tuple[str, Handler, str, dict[str, Any] | None]]:
    """(path, handler, what it gives, parameters) of the routes that are GET."""

    async def access_needed(request: Request) -> Response:
        return json_response({"key": bool(access.keys)})

    async def tasks(request: Request) -> Response:
        return json_response(offers(state))

    async def list_runs(request: Request) -> Response:
        found = await _in_thread(state, lambda: [] if state.runs is None else state.runs.list())
        return json_response({"object": "list", "served": state.runs is not None, "data": found})

    async def log(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not after.isascii() or not after.isdigit() or len(after) > 18:
            raise ApiError(400, "after must be a whole number.", param="after", code="invalid_value")
        name = request.path_params["run"]
        return json_response(await _in_thread(state, lambda: _runs(state).log(name, int(after))))

    async def report(request: Request) -> Response:
        return await _report(state, request.path_params["run"])

    async def opened_report(request: Request) -> Response:
        name = request.path_params["run"]
        _runs(state).check_ticket(name, request.query_params.get("ticket", ""))
        return await _report(state, name)

    return [
        ("/page/access", access_needed, "Whether a key is needed.", None),
        ("/page/report/{run}", opened_report, "A report, with a ticket of /runs in place of a key.", {"parameters": [RUN]}),
        ("/v1/tasks", tasks, "What the models can be asked to do.", None),
        ("/runs", list_runs, "The runs below the folder of --runs.", None),
        ("/runs/{run}/log", log, "The curves of a run, from a place of its log on.", {"parameters": [RUN, AFTER]}),
        ("/runs/{run}/report.html", report, "The report of a run.", {"parameters": [RUN]}),
    ]  # fmt: skip


def offers(state: State) -> dict[str, Any]:
    """`/v1/tasks`: for each model its tasks, each with the scores measured for it or null, and its labels."""
    models = [_offer(model) for model in state.models.by_name.values()]
    documents = None
    if state.documents is not None:
        documents = {"name": state.documents.path.name, "count": state.documents.count}
    return {"object": "list", "data": models, "documents": documents}


def _offer(model: Served) -> dict[str, Any]:
    known = model.loaded.run.get("scores")
    scores = known if isinstance(known, dict) else {}
    tasks = {
        name: next((scores[one] for one in measured if one in scores), None)
        for name, (method, measured, _) in TASKS.items()
        if hasattr(model.loaded, method)
    }
    labels = getattr(model.loaded, "labels", None) or model.loaded.run.get("labels") or []
    return {"id": model.name, "taught": model.loaded.taught, "tasks": tasks, "labels": list(labels)}


async def _report(state: State, name: str) -> Response:
    path = await _in_thread(state, lambda: _runs(state).report(name))
    headers = HEADERS | {"content-security-policy": REPORT_POLICY}
    return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)


def _runs(state: State) -> RunFolder:
    if state.runs is None:
        raise ApiError(404, "No runs are shown here (ownlm serve --runs FOLDER).", code="no_runs")
    return state.runs


async def _in_thread(state: State, work: Callable[[], Any]) -> Any:
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(state.threads, work)
