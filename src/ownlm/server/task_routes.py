"""`/v1/tasks/…`: the methods of a model for one task each, in threads beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from ownlm.console.errors import OwnlmError
from ownlm.server.call import Call, Handler, json_response
from ownlm.server.errors import ApiError, ClientGone, from_ownlm
from ownlm.server.served import Served

Work = Callable[[Any, dict[str, Any]], Any]


def _texts(fields: dict[str, Any]) -> list[str]:
    given = fields["input"]
    return [given] if isinstance(given, str) else list(given)


def _translate(model: Any, fields: dict[str, Any]) -> Any:
    return model.translate(_texts(fields), fields["to"], from_=fields["from"])


def _answer(model: Any, fields: dict[str, Any]) -> Any:
    return model.read(fields["question"], fields["context"], top_k=fields["top_k"])


def _classify(model: Any, fields: dict[str, Any]) -> Any:
    return model.classify(_texts(fields), labels=fields["labels"], top_k=fields["top_k"])


def _summarize(model: Any, fields: dict[str, Any]) -> Any:
    return model.summarize(_texts(fields))


# The last word of the path, the method of a model, what scores in run.json are called, what is done.
TASKS: dict[str, tuple[str, tuple[str, ...], Work]] = {
    "translate": ("translate", ("translation",), _translate),
    "answer": ("read", ("qa",), _answer),
    "classify": ("classify", ("classification", "sentiment"), _classify),
    "summarize": ("summarize", ("summarization",), _summarize),
}


def task(name: str) -> Handler:
    """The handler of a task."""
    method, scores, work = TASKS[name]

    async def handle(call: Call) -> Response:
        fields = await call.fields()
        served = call.state.models.find(fields["model"])
        call.record.model = served.name
        if not hasattr(served.loaded, method):
            can = ", ".join(served.loaded.taught)
            raise ApiError(
                400,
                f'The model "{served.name}" cannot {name}. What it does: {can}.',
                param="model",
                code="task_not_supported",
            )
        known = served.loaded.run.get("scores") or {}
        measured = next((known[one] for one in scores if one in known), None)
        return await run_task(call, served, name, lambda model: work(model, fields), fields, measured)

    return handle


async def run_task(
    call: Call,
    served: Served,
    name: str,
    work: Callable[[Any], Any],
    fields: dict[str, Any],
    measured: Any = None,
) -> Response:
    """The results of a model's work in a thread, as a task's route answers.

    Args:
        name: of the task. work: gets the model. fields: of the request, for the log of contents.
        measured: scores of the task.
    """
    call.record.model = served.name
    await call.enter()
    model = served.for_thread()
    engine: Any = model.engine if served.driver is not None else None
    if engine is not None:
        call.at_the_end.append(engine.leave)
    results = await _in_thread(call, lambda: work(model))
    tokens = {}
    if engine is not None:
        call.record.prompt_tokens, call.record.new_tokens = engine.prompt_tokens, engine.new_tokens
        tokens = {"prompt_tokens": engine.prompt_tokens, "completion_tokens": engine.new_tokens}
    call.record.content = {"fields": fields, "results": results}
    call.record.finish = ["stop"]
    return json_response(
        {
            "object": f"task.{name}",
            "model": served.name,
            "results": results,
            "measured": measured,
            "usage": tokens,
        }
    )


class _Done:
    """The thread has ended."""


async def _in_thread(call: Call, work: Callable[[], Any]) -> Any:
    """The result of a thread; the client that leaves and the time that ends are noticed meanwhile."""
    future = asyncio.get_running_loop().run_in_executor(call.state.task_threads, work)
    future.add_done_callback(lambda done: call.mailbox.put(_Done()))
    try:
        while not isinstance(await call.news(), _Done):
            pass
        return future.result()
    except OwnlmError as error:
        raise from_ownlm(error) from None
    except (ClientGone, ApiError):
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else looks at it
        raise
