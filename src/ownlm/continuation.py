"""Continuing text: the engine's tokens as text that is valid at every moment.

Held back until it is certain: bytes of an unfinished character, and what may be the beginning of a stop
string.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ownlm.engine.requests import Request

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.engine import Engine
    from ownlm.engine.requests import Constraint, Event, SamplingSettings


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Args:
        prompt, text: text before, and text that was generated (without a stop string).
        index: number of the sequence, from 0, when several were asked for.
        prompt_tokens: of the prompt (the <|endoftext|> before it is not counted; a prefix that somebody else's
            tokenizer adds is, as in transformers).
        new_tokens: generated ones, a final <|endoftext|> included.
        finish_reason: "stop": the model ended the text or a stop string appeared; "length".
        stop: the stop string that appeared.
        seed: of the request.
        logprob: log-probability of the generated tokens together, nats.
        bytes_dropped: bytes of an unfinished character at the end, which cannot be shown.
    """

    prompt: str
    text: str
    index: int
    prompt_tokens: int
    new_tokens: int
    finish_reason: str
    stop: str | None
    seed: int
    logprob: float
    bytes_dropped: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Piece:
    """Text that became certain: of which prompt and sequence; the last one holds the completion."""

    prompt: int
    index: int
    text: str
    completion: Completion | None = None


class TextStream:
    """Text from token bytes, the same however they are cut into tokens.

    Args:
        stop: strings that end the text; they are not part of it. The one that is complete first ends it (of two
            that are complete at the same place the longer one).
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = tuple(stop)
        self.stopped: str | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def push(self, data: bytes) -> str:
        """The text that is certain after these bytes; once `stopped` is set there is no more."""
        self._held += self._decoder.decode(data)
        ends = [
            (self._held.find(stop) + len(stop), -len(stop), stop) for stop in self.stop if stop in self._held
        ]
        if ends:
            end, _, self.stopped = min(ends)
            text, self._held = self._held[: end - len(self.stopped)], ""
            return text
        certain = len(self._held) - self._doubtful()
        text, self._held = self._held[:certain], self._held[certain:]
        return text

    def finish(self) -> str:
        """What was held back and is certain now that nothing follows."""
        text, self._held = self._held, ""
        return text

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of a character that has not ended."""
        return len(self._decoder.getstate()[0])

    def _doubtful(self) -> int:
        """Length of the longest end of the held text that may begin a stop string."""
        for length in range(min(len(self._held), max(map(len, self.stop), default=1) - 1), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self.stop):
                return length
        return 0


class _Writing:
    """One sequence while it is written."""

    def __init__(self, prompt: Prompt, seed: int, stop: Sequence[str]) -> None:
        self.prompt, self.seed = prompt, seed
        self.stream = TextStream(stop)
        self.text, self.tokens, self.logprob = "", 0, 0.0

    def add(self, event: Event, data: bytes) -> tuple[str, Completion | None]:
        """The text that one more token makes certain, and the completion when the sequence has ended."""
        self.tokens += 1
        self.logprob += event.logprob
        text = self.stream.push(data)
        ended = event.finish_reason is not None or self.stream.stopped is not None
        if ended and self.stream.stopped is None:
            text += self.stream.finish()
        self.text += text
        return text, self._completion(event) if ended else None

    def _completion(self, event: Event) -> Completion:
        stopped = self.stream.stopped
        return Completion(
            prompt=self.prompt.text,
            text=self.text,
            index=event.index,
            prompt_tokens=self.prompt.tokens,
            new_tokens=self.tokens,
            finish_reason="stop" if stopped is not None else str(event.finish_reason),
            stop=stopped,
            seed=self.seed,
            logprob=self.logprob,
            bytes_dropped=self.stream.unfinished_bytes if stopped is None else 0,
        )


class Prompt(NamedTuple):
    """A text to continue.

    Args:
        text: of the user.
        ids: what the model reads, the tokenizer's prefix included.
        uncounted: tokens in front that are not part of what the user counts: our own <|endoftext|>.
    """

    text: str
    ids: list[int]
    uncounted: int = 0

    @property
    def tokens(self) -> int:
        """Tokens as they are counted for `max_length`."""
        return len(self.ids) - self.uncounted


def encode_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """A text as what the model reads."""
    return Prompt(text, tokenizer.encode_prompt(text), int(tokenizer.ours))


def continue_texts(
    engine: Engine,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    settings: Sequence[SamplingSettings],
    stop: Sequence[str] = (),
    constraint: Constraint | None = None,
) -> Iterator[Piece]:
    """Continue prompts, all at the same time; yields text as it becomes certain.

    Args:
        prompts: from `encode_prompt`.
        settings: one for each prompt.
        stop: strings that end a text.
        constraint: holds each answer to a form.

    Raises:
        Refused: a prompt that fills the context window; then nothing is generated.
    """
    numbers: dict[int, int] = {}
    writing: dict[tuple[int, int], _Writing] = {}
    try:
        for number, (prompt, sampling) in enumerate(zip(prompts, settings, strict=True)):
            request_id = engine.submit(Request(prompt.ids, sampling, constraint=constraint))
            numbers[request_id] = number
            for index in range(sampling.n):
                writing[request_id, index] = _Writing(prompt, sampling.seed, stop)
        while writing:
            for event in engine.step_for(numbers.keys()):
                key = (event.request_id, event.index)
                if key not in writing:  # a stop string has ended it; what follows was computed before
                    continue
                data = tokenizer.token_bytes(event.token_id)
                if not writing[key].tokens and not writing[key].prompt.text:
                    # The space that sentencepiece puts before every text is not part of it.
                    spaces = min(tokenizer.leading_spaces_stripped, len(data) - len(data.lstrip(b" ")))
                    data = data[spaces:]
                text, completion = writing[key].add(event, data)
                if completion is not None:
                    engine.cancel(*key)  # after a stop string the engine does not know that it has ended
                    del writing[key]
                if text or completion is not None:
                    yield Piece(numbers[event.request_id], event.index, text, completion)
    finally:
        for request_id in numbers:
            engine.cancel(request_id)
