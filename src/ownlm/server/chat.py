"""`/v1/chat/completions`: a conversation is written by the model's template and answered."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from ownlm.server.answers import Answer, Piece, chat_logprobs
from ownlm.server.call import Call, json_response
from ownlm.server.errors import ApiError
from ownlm.server.generation import Generation, seed_of
from ownlm.server.prompts import chat_prompt, requests_of
from ownlm.server.served import Served, generating
from ownlm.server.streaming import PING, EventStream, frame

ROUTE = "/v1/chat/completions"


async def chat_completions(call: Call) -> Response:
    """Answer a request."""
    fields = await call.fields()
    model = generating(call.state.models.find(fields["model"]))
    if fields["top_logprobs"] and not fields["logprobs"]:
        raise ApiError(400, "top_logprobs needs logprobs: true.", param="top_logprobs")
    top = (fields["top_logprobs"] or 0) if fields["logprobs"] else None

    def prepared() -> Generation:
        prompt = chat_prompt(model, fields["messages"], fields["add_generation_prompt"])
        asked = fields["max_completion_tokens"]
        work = requests_of(
            model,
            [prompt],
            fields,
            call.state.limits,
            new_tokens=fields["max_tokens"] if asked is None else asked,
            default_tokens=None,
            seed=seed_of(fields),
            top=top,
            turn_ends=model.turn_ends,
        )
        return Generation(call, model, [prompt], fields, work, strip=True)

    generation = await call.in_thread(prepared)
    await call.enter()
    await generation.begin()
    form = ChatForm(model, generation, top)
    if not fields["stream"]:
        return json_response(form.whole(await generation.whole()))
    frames = form.frames()
    return EventStream(call, await anext(frames), frames)


class ChatForm:
    """OpenAI's form of an answer in a conversation."""

    def __init__(self, model: Served, generation: Generation, top: int | None) -> None:
        self._model, self._generation, self._top = model, generation, top
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": model.fingerprint,
        }

    def whole(self, found: list[list[Piece]]) -> dict[str, Any]:
        """Everything at once."""
        choices = []
        for answer, pieces in zip(self._generation.answers, found):
            text = "".join(piece.text for piece in pieces)
            message = {"role": "assistant", "content": text, "refusal": None}
            choices.append({"index": answer.number, "message": message, **self._closing(pieces)})
        return {**self._head, "choices": choices, "usage": self._generation.usage()}

    async def frames(self) -> AsyncIterator[bytes]:
        """The roles, then one event for each piece of text."""
        options = self._generation.fields["stream_options"]
        counted = options is not None and options.include_usage
        always = options is not None and options.continuous_usage_stats
        head = {**self._head, "object": "chat.completion.chunk"}

        def chunk(choice: dict[str, Any]) -> bytes:
            extra = {"usage": self._generation.usage() if always else None} if counted or always else {}
            return frame({**head, "choices": [choice], **extra})

        begun: set[int] = set()
        async for one in self._generation.pieces(ping=True):
            if one is None:
                yield PING
                continue
            answer, piece = one
            if answer.number not in begun:
                begun.add(answer.number)
                yield chunk(self._delta(answer, {"role": "assistant", "content": ""}, None))
            if piece.text or (piece.entries and self._top is not None):
                yield chunk(self._delta(answer, {"content": piece.text}, piece))
            if piece.finish_reason is not None:
                yield chunk({"index": answer.number, "delta": {}, **self._closing([piece]), "logprobs": None})
        if counted:
            yield frame({**head, "choices": [], "usage": self._generation.usage()})

    def _delta(self, answer: Answer, delta: dict[str, Any], piece: Piece | None) -> dict[str, Any]:
        logprobs = None if piece is None else self._logprobs([piece])
        return {"index": answer.number, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        if self._top is None:
            return None
        entries = [entry for piece in pieces for entry in piece.entries]
        return chat_logprobs(entries, self._model.tokens, self._top)

    def _closing(self, pieces: list[Piece]) -> dict[str, Any]:
        last = pieces[-1]
        return {
            "logprobs": self._logprobs(pieces),
            "finish_reason": last.finish_reason,
            "stop_reason": last.stop_reason,
        }
