"""`/v1/completions`: texts and token ids are continued."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from ownlm.server.answers import Answer, Piece, completion_logprobs, prompt_entries
from ownlm.server.call import Call, json_response
from ownlm.server.errors import ApiError
from ownlm.server.generation import Generation, seed_of
from ownlm.server.prompts import DEFAULT_TOKENS, requests_of, text_prompts
from ownlm.server.served import Served, generating
from ownlm.server.streaming import PING, EventStream, frame

ROUTE = "/v1/completions"


async def completions(call: Call) -> Response:
    """Answer a request."""
    fields = await call.fields()
    model = generating(call.state.models.find(fields["model"]))
    if fields["max_tokens"] == 0 and not fields["echo"]:
        raise ApiError(
            400, "max_tokens is 0: nothing would come back. With echo it is possible.", param="max_tokens"
        )

    def prepared() -> Generation:
        prompts = text_prompts(model, fields["prompt"], fields["add_special_tokens"])
        work = requests_of(
            model,
            prompts,
            fields,
            call.state.limits,
            new_tokens=fields["max_tokens"],
            default_tokens=DEFAULT_TOKENS,
            seed=seed_of(fields),
            top=fields["logprobs"],
            echo=fields["echo"],
        )
        return Generation(call, model, prompts, fields, work, strip=False)

    generation = await call.in_thread(prepared)
    await call.enter()
    await generation.begin()
    form = CompletionForm(model, generation)
    if not fields["stream"]:
        return json_response(form.whole(await generation.whole()))
    frames = form.frames()
    return EventStream(call, await anext(frames), frames)


class CompletionForm:
    """OpenAI's form of a completion."""

    def __init__(self, model: Served, generation: Generation) -> None:
        self._model, self._generation = model, generation
        self._fields = generation.fields
        self._begun: set[int] = set()  # answers whose prompt was echoed
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": model.fingerprint,
        }

    def whole(self, found: list[list[Piece]]) -> dict[str, Any]:
        """Everything at once."""
        choices = [self._choice(answer, pieces) for answer, pieces in zip(self._generation.answers, found)]
        return {**self._head, "choices": choices, "usage": self._generation.usage()}

    async def frames(self) -> AsyncIterator[bytes]:
        """One event for each piece of text."""
        options = self._fields["stream_options"]
        counted = options is not None and options.include_usage
        always = options is not None and options.continuous_usage_stats
        async for one in self._generation.pieces(ping=True):
            if one is None:
                yield PING
                continue
            chunk = {**self._head, "choices": [self._choice(one[0], [one[1]])]}
            if counted or always:
                chunk["usage"] = self._generation.usage() if always else None
            yield frame(chunk)
        if counted:
            yield frame({**self._head, "choices": [], "usage": self._generation.usage()})

    def _choice(self, answer: Answer, pieces: list[Piece]) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        entries = [entry for piece in pieces for entry in piece.entries]
        logprobs = None
        if self._fields["echo"] and answer.number not in self._begun:
            prompt = answer.prompt
            echoed = prompt.text if prompt.text is not None else self._model.tokens.text(prompt.ids)
            text = echoed + text
            entries = prompt_entries(prompt, answer.prompt_scores) + entries
        if self._fields["logprobs"] is not None:
            logprobs = completion_logprobs(entries, self._model.tokens, answer.offset)
        answer.offset += len(text)
        self._begun.add(answer.number)
        last = pieces[-1]
        return {
            "index": answer.number,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": last.finish_reason,
            "stop_reason": last.stop_reason,
        }
