"""`/v1/embeddings`: the mean of the last layer's states of a text, as a vector of length 1."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from ownlm.console.errors import OwnlmError
from ownlm.server.call import Call, json_response
from ownlm.server.errors import ApiError
from ownlm.server.generation import failure
from ownlm.server.prompts import Prompt, text_prompts
from ownlm.server.served import Served, generating

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


async def embeddings(call: Call) -> Response:
    """Answer a request."""
    fields = await call.fields()
    model = generating(call.state.models.find(fields["model"]))
    assert model.driver is not None
    width = model.driver.engine.backend.hidden_size
    if (fields["dimensions"] or 0) > width:
        raise ApiError(
            400, f"{fields['dimensions']:,} dimensions; this model has {width:,}.", param="dimensions"
        )
    prompts = await call.in_thread(lambda: _fitting(model, fields))
    await call.enter()
    vectors = await _embedded(call, model, prompts)
    shown = [_shown(vector[: fields["dimensions"]], fields["encoding_format"]) for vector in vectors]
    tokens = sum(prompt.tokens for prompt in prompts)
    data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(shown)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "data": data, "model": model.name, "usage": usage})


def _fitting(model: Served, fields: dict[str, Any]) -> list[Prompt]:
    prompts = text_prompts(model, fields["input"], fields["add_special_tokens"], "input")
    for prompt in prompts:
        if len(prompt.ids) > model.loaded.context:
            raise ApiError(
                400,
                f"The context window holds {model.loaded.context:,} tokens; the text has {prompt.tokens:,}.",
                param="input",
                code="context_length_exceeded",
            )
    return prompts


async def _embedded(call: Call, model: Served, prompts: list[Prompt]) -> list[npt.NDArray[np.float32]]:
    from ownlm.engine.requests import Request

    driver = model.driver
    assert driver is not None
    call.record.model = model.name
    call.record.prompt_tokens = sum(prompt.tokens for prompt in prompts)
    tickets: dict[int, int] = {}
    call.at_the_end.append(lambda: driver.cancel(tickets))
    for number, prompt in enumerate(prompts):
        request = Request(prompt.ids, adapter=model.adapter, embedding="mean")
        tickets[driver.submit(request, call.mailbox)] = number
    found: dict[int, Any] = {}
    while len(found) < len(prompts):
        news = await call.news()
        if news.what is None:
            continue
        error = news.what if isinstance(news.what, OwnlmError) else news.what.error
        if error is not None:
            raise failure(error)
        found[tickets[news.ticket]] = news.what.embedding
    tickets.clear()
    return [found[number] for number in range(len(prompts))]


def _shown(vector: npt.NDArray[np.float32], form: str) -> Any:
    import numpy as np

    length = float(np.linalg.norm(vector))
    unit = (vector / length if length else vector).astype("<f4")
    return base64.b64encode(unit.tobytes()).decode("ascii") if form == "base64" else unit.tolist()
