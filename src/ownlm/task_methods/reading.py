"""Answers to questions as words of a context, by a model without a head.

The model writes its answer after context and question, held to words of the context. What it would rather write there,
"not in the text", is weighed against it. The score of an answer is the probability that the model writes exactly it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import Refused, UsageError
from ownlm.engine.requests import Request, SamplingSettings
from ownlm.task_methods.asking import Asked, Asker
from ownlm.task_methods.likelihood import answer_logprobs
from ownlm.task_methods.requests import run_requests
from ownlm.task_methods.spans import SpanConstraint, Spelling, Text
from ownlm.task_methods.windows import windows
from ownlm.tasks.text_forms import NO_ANSWER

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

MAX_ANSWER_TOKENS = 32
SEAM = 4  # tokens by which a prompt may be longer than its parts
Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class _Window:
    """A part of a context with the question about it."""

    number: int  # of the pair
    start: int  # character of the context
    context: str
    asked: Asked
    ids: list[int]


def read_all(
    loaded: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    top_k: int = 1,
    max_answer_tokens: int = MAX_ANSWER_TOKENS,
) -> list[Answers]:
    """The best answers to (question, context) pairs, best first: {"answer", "score", "start", "end"}.

    An answer is a span [start, end) of the context in characters, or "" (start = end = 0): it is not there. Several
    answers begin differently. A context longer than the window is read through windows that advance by half; no
    answer then is as probable as in the window where it is least probable.

    Raises:
        Refused: an empty question or context, or a question that fills the window. UsageError: `top_k` below 1.
    """
    if top_k < 1:
        raise UsageError(f"{top_k} answers; it must be at least 1.", where="top_k")
    asker = Asker(loaded)
    parts = [
        part
        for number, pair in enumerate(pairs)
        for part in _windows(loaded, asker, number, *pair, max_answer_tokens)
    ]
    found: list[dict[tuple[int, int], float]] = [{} for _ in pairs]
    for part, place, score in _written(loaded, asker, parts, top_k, max_answer_tokens):
        found[part.number][place] = max(found[part.number].get(place, 0.0), score)
    none = _not_there(loaded, asker, parts)
    return [
        _best(context, spans, none.get(number, 0.0), top_k)
        for number, ((_, context), spans) in enumerate(zip(pairs, found))
    ]


def _best(context: str, spans: dict[tuple[int, int], float], none: float, top_k: int) -> Answers:
    answers: Answers = [
        {"answer": context[start:end], "score": score, "start": start, "end": end}
        for (start, end), score in spans.items()
    ]
    answers.append({"answer": "", "score": none, "start": 0, "end": 0})
    return sorted(answers, key=lambda answer: -answer["score"])[:top_k]


def _windows(
    loaded: LoadedModel, asker: Asker, number: int, question: str, context: str, answer_tokens: int
) -> list[_Window]:
    for name, text in (("question", question), ("context", context)):
        if not text.strip():
            raise Refused(f"an empty {name}.", where=f"pair {number}")
    around = len(asker.ids(asker.question(question, "")))
    if loaded.answers_alone:  # an answer of a decoder has a window of its own
        answer_tokens = 0
    room = loaded.context - around - answer_tokens - SEAM
    if room < 1:
        raise Refused(
            f"{around:,} tokens with what is asked, and {answer_tokens} for an answer; the window holds {loaded.context:,}.",
            where="question",
            do="a shorter question, or a model with a longer window",
        )
    found = []
    for start, end in windows(loaded.tokenizer, context, room):
        asked = asker.question(question, context[start:end])
        found.append(_Window(number, start, context[start:end], asked, asker.ids(asked)))
    return found


def _written(
    loaded: LoadedModel, asker: Asker, parts: Sequence[_Window], top_k: int, answer_tokens: int
) -> Iterator[tuple[_Window, tuple[int, int], float]]:
    """(window, place in the whole context, probability) of the answers of all windows, `top_k` of each at most."""
    ends, spelling = end_ids(asker), spelling_of(loaded)
    texts = [Text.of(part.context) for part in parts]
    barred: list[list[int]] = [[] for _ in parts]
    settings = SamplingSettings(temperature=0, max_new_tokens=answer_tokens)
    for _ in range(top_k):
        forms = {
            n: SpanConstraint(texts[n], spelling, ends, spaced=bool(part.asked.lead), barred=barred[n])
            for n, part in enumerate(parts)
        }
        open_ = {n: form for n, form in forms.items() if form.mask().any()}
        requests = [Request(parts[n].ids, settings, constraint=form) for n, form in open_.items()]
        for (n, form), events in zip(open_.items(), run_requests(loaded, requests), strict=True):
            barred[n].append(events[0].token_id)
            for event in events:
                form.accept(event.token_id)
            if form.place is not None:
                start, end = (parts[n].start + at for at in form.place)
                yield parts[n], (start, end), math.exp(sum(event.logprob for event in events))


def _not_there(loaded: LoadedModel, asker: Asker, parts: Sequence[_Window]) -> dict[int, float]:
    """Number of a pair → probability that the model writes `NO_ANSWER`, the least of its windows."""
    prompts, answers = [], []
    end = end_ids(asker)[:1] if asker.template is not None else []
    for part in parts:
        prompt, (answer,) = asker.split(part.asked, [NO_ANSWER])
        prompts.append(prompt)
        answers.append([[*answer, *end]])
    found: dict[int, float] = {}
    for part, (logprob,) in zip(parts, answer_logprobs(loaded, prompts, answers), strict=True):
        found[part.number] = min(found.get(part.number, 1.0), math.exp(logprob))
    return found


def end_ids(asker: Asker) -> tuple[int, ...]:
    """Tokens that end an answer in words of a text: with a template that of a turn, else the end of a line too."""
    if asker.turn_ends:
        return asker.stop_ids
    tokenizer = asker.loaded.tokenizer
    lines = [n for n in range(tokenizer.vocab_size) if tokenizer.token_bytes(n).startswith(b"\n")]
    return tuple(dict.fromkeys([*asker.stop_ids, *lines]))


def spelling_of(loaded: LoadedModel) -> Spelling:
    """What the tokens of a model spell."""
    size = loaded.engine.backend.vocab_size
    return Spelling([loaded.tokenizer.token_bytes(index) for index in range(size)])
