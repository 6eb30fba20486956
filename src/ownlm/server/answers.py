"""One answer while it is written: its text as it becomes certain, its tokens with their log-probabilities."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ownlm.continuation import TextStream
from ownlm.server.prompts import Prompt
from ownlm.server.served import Served, TokenNames

if TYPE_CHECKING:
    from ownlm.engine.requests import Event, TokenScores

LEAST = -9999.0  # OpenAI's number for a probability that is none: JSON has no infinity


@dataclass(frozen=True)
class Entry:
    """A token with its log-probability (nats; None: nothing stands before it) and the most probable ones."""

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """Text of an answer that became certain, and the tokens that it came with."""

    text: str
    entries: list[Entry]
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class Answer:
    """One of the answers of a request.

    Args:
        number: among them.
        prompt: what it follows.
        stop: texts that end it. show_stop: they are part of it. show_special: so are special tokens.
        stop_ids: special tokens that end it by the request's own wish.
        strip: a leading space that sentencepiece puts before every text is left out.
    """

    def __init__(
        self,
        number: int,
        model: Served,
        prompt: Prompt,
        stop: Sequence[str],
        *,
        show_stop: bool,
        show_special: bool,
        stop_ids: Sequence[int],
        strip: bool,
    ) -> None:
        self.number, self.prompt = number, prompt
        self.tokens = 0
        self.text = ""
        self.last = 0.0  # when its last token came, by the monotonic clock
        self.offset = 0  # characters that were sent, the echoed prompt included
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        self.prompt_scores: TokenScores | None = None
        self._stream = TextStream(stop)
        self._held: list[Entry] = []
        self._names, self._tokenizer = model.tokens, model.tokenizer
        self._show_stop, self._show_special, self._stop_ids, self._strip = (
            show_stop,
            show_special,
            stop_ids,
            strip,
        )

    def add(self, event: Event) -> Piece | None:
        """What one more event makes certain; None: nothing yet."""
        if self.finish_reason is not None:  # a stop text has ended it; what follows was computed before
            return None
        if event.prompt is not None:
            self.prompt_scores = event.prompt
        text = ""
        if event.token_id >= 0:
            text = self._stream.push(self._data(event.token_id))
            self.tokens += 1
            self._held.append(Entry(event.token_id, event.logprob, event.top))
        if self._stream.stopped is not None:
            self.finish_reason, self.stop_reason = "stop", self._stream.stopped
            text += self._stream.stopped if self._show_stop else ""
        elif event.finish_reason is not None:
            text += self._stream.finish()
            self.finish_reason = event.finish_reason
            if event.token_id in self._stop_ids:
                self.stop_reason = event.token_id
        if not text and self.finish_reason is None:
            return None
        self.text += text
        entries, self._held = self._held, []
        return Piece(text, entries, self.finish_reason, self.stop_reason)

    def _data(self, token: int) -> bytes:
        data = self._names.data(token) if self._show_special else self._tokenizer.token_bytes(token)
        if self._strip and not self.tokens:
            spaces = min(self._tokenizer.leading_spaces_stripped, len(data) - len(data.lstrip(b" ")))
            data = data[spaces:]
        return data


def prompt_entries(prompt: Prompt, scores: TokenScores | None) -> list[Entry]:
    """The counted tokens of a prompt; the first one has a log-probability where something stands before it."""
    entries = [Entry(prompt.ids[0], None)]
    if scores is not None:
        rows = zip(scores.logprobs.tolist(), scores.top_ids.tolist(), scores.top_logprobs.tolist())
        for token, (own, ids, best) in zip(prompt.ids[1:], rows):
            entries.append(Entry(token, own, tuple(zip(ids, best))))
    return entries[prompt.uncounted :]


def completion_logprobs(entries: Sequence[Entry], names: TokenNames, offset: int) -> dict[str, Any]:
    """OpenAI's form of `/v1/completions`: lists with one element a token.

    `top_logprobs` holds the token itself too. Of tokens with the same name the most probable one counts, so that
    the largest of them is the largest of all.

    Args:
        offset: characters of the text before the first token.
    """
    found: dict[str, Any] = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for entry in entries:
        found["tokens"].append(names.name(entry.token))
        found["text_offset"].append(offset)
        offset += len(decoder.decode(names.data(entry.token)))
        if entry.logprob is None:
            found["token_logprobs"].append(None)
            found["top_logprobs"].append(None)
            continue
        best: dict[str, float] = {}
        for token, logprob in (*entry.top, (entry.token, entry.logprob)):
            key = names.name(token)
            best[key] = max(best.get(key, LEAST), logprob)
        found["token_logprobs"].append(max(LEAST, entry.logprob))
        found["top_logprobs"].append(best)
    return found


def chat_logprobs(entries: Sequence[Entry], names: TokenNames, top: int) -> dict[str, Any]:
    """OpenAI's form of `/v1/chat/completions`: an object a token."""
    content = []
    for entry in entries:
        best = [_named(names, token, logprob) for token, logprob in entry.top[:top]]
        content.append(_named(names, entry.token, entry.logprob or 0.0) | {"top_logprobs": best})
    return {"content": content, "refusal": None}


def _named(names: TokenNames, token: int, logprob: float) -> dict[str, Any]:
    return {"token": names.name(token), "logprob": max(LEAST, logprob), "bytes": list(names.data(token))}
