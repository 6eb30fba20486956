"""The answers of one request, from the engine's events to text."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import OwnlmError
from ownlm.server.answers import Answer, Piece
from ownlm.server.call import Call
from ownlm.server.driver import BrokenStep, News, Stopping
from ownlm.server.errors import ApiError, from_ownlm
from ownlm.server.prompts import Prompt
from ownlm.server.served import Served

if TYPE_CHECKING:
    from ownlm.engine.requests import Request


class Generation:
    """What the engine writes for a request.

    Args:
        call: the request.
        model: that answers.
        prompts: that it continues.
        fields: that were honoured.
        work: requests for the engine, each with the numbers of its answers.
        strip: see `Answer`.
    """

    def __init__(
        self,
        call: Call,
        model: Served,
        prompts: Sequence[Prompt],
        fields: Mapping[str, Any],
        work: Sequence[tuple[Request, list[int]]],
        *,
        strip: bool,
    ) -> None:
        assert model.driver is not None
        self._call, self._model, self._driver = call, model, model.driver
        self.prompts, self.fields, self._work = prompts, fields, work
        stop = fields["stop"]
        stops = [stop] if isinstance(stop, str) else [one for one in stop or () if one is not None]
        self.answers = [
            Answer(
                number,
                model,
                prompts[number // fields["n"]],
                stops,
                show_stop=fields["include_stop_str_in_output"],
                show_special=not fields["skip_special_tokens"],
                stop_ids=fields["stop_token_ids"],
                strip=strip or not prompts[number // fields["n"]].tokens,
            )
            for number in range(len(prompts) * fields["n"])
        ]
        self._numbers: dict[int, list[int]] = {}  # ticket -> numbers of its answers
        self._early: deque[News] = deque()
        self._left = len(self.answers)

    async def begin(self) -> None:
        """Hand the requests to the engine and wait until it has taken all.

        Raises:
            ApiError: it refuses one.
        """
        call = self._call
        call.record.model = self._model.name
        call.record.prompt_tokens = sum(prompt.tokens for prompt in self.prompts)
        call.at_the_end.append(self._end)
        for request, numbers in self._work:
            self._numbers[self._driver.submit(request, call.mailbox)] = numbers
        untaken = len(self._work)
        while untaken:
            news = await call.news()
            if news.what is None:
                untaken -= 1
            elif isinstance(news.what, OwnlmError):
                raise failure(news.what)
            else:
                self._early.append(news)

    async def pieces(self, *, ping: bool = False) -> AsyncIterator[tuple[Answer, Piece] | None]:
        """Text of the answers as it becomes certain; None (with `ping`): nothing came for a while."""
        record, metrics = self._call.record, self._call.state.metrics
        while self._left:
            news = self._early.popleft() if self._early else await self._call.news(ping=ping)
            if news is None:
                yield None
                continue
            if isinstance(news.what, OwnlmError):
                raise failure(news.what)
            event, ticket = news.what, news.ticket
            assert event is not None
            if event.error is not None:
                raise failure(event.error)
            now = time.monotonic()
            if record.first is None:
                record.first = record.seconds
                metrics.first_token(record.first)
            answer = self.answers[self._numbers[ticket][event.index]]
            if answer.tokens and answer.finish_reason is None:
                metrics.between_tokens(now - answer.last)
            answer.last = now
            piece = answer.add(event)
            if piece is None:
                continue
            if answer.finish_reason is not None:
                self._left -= 1
                if event.finish_reason is None:  # the engine does not know of stop texts
                    self._driver.cancel([ticket], event.index)
            yield answer, piece

    async def whole(self) -> list[list[Piece]]:
        """All pieces of each answer."""
        found: list[list[Piece]] = [[] for _ in self.answers]
        async for one in self.pieces():
            assert one is not None
            found[one[0].number].append(one[1])
        return found

    def usage(self) -> dict[str, int]:
        """Token counts so far."""
        prompt = sum(prompt.tokens for prompt in self.prompts)
        new = sum(answer.tokens for answer in self.answers)
        return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}

    def _end(self) -> None:
        """Free what is left in the engine, and note what came of it."""
        record = self._call.record
        if self._left:
            self._driver.cancel(self._numbers)
        record.new_tokens = sum(answer.tokens for answer in self.answers)
        reasons = [answer.finish_reason or "abandoned" for answer in self.answers]
        record.finish = record.finish or reasons
        record.content = {"prompts": [p.text if p.text is not None else p.ids for p in self.prompts]}
        record.content["answers"] = [answer.text for answer in self.answers]
        self._call.state.metrics.generated(record, reasons)


def failure(error: OwnlmError) -> ApiError:
    """Why the engine ended a request."""
    if isinstance(error, BrokenStep):
        return ApiError(500, str(error))
    if isinstance(error, Stopping):
        return ApiError(503, "The server is stopping.")
    found = from_ownlm(error)
    if not hasattr(error, "where") or error.where is None:
        found.code = "model_failure"
    return found


def seed_of(fields: Mapping[str, Any]) -> int:
    """The seed that was given, else a new one."""
    return secrets.randbits(63) if fields["seed"] is None else int(fields["seed"])
