"""Answers as spans of a context by a causal model."""

from __future__ import annotations

import math

import pytest

from ownlm.console.errors import Refused, UsageError
from ownlm.engine.requests import SamplingSettings
from ownlm.task_methods import reading
from ownlm.task_methods.asking import Asker
from ownlm.task_methods.likelihood import answer_logprobs
from ownlm.tasks.text_forms import NO_ANSWER

CONTEXT = "The quick brown fox runs home. A river flows to the sea, 3.5 km away."


def probability(model, question: str, context: str, answer: str) -> float:
    asker = Asker(model)
    asked = asker.question(question, context)
    prompt, (ids,) = asker.split(asked, [answer])
    ((logprob,),) = answer_logprobs(model, [prompt], [[ids]])
    return math.exp(logprob)


def test_answers_stand_in_the_context_best_first(model):
    found = model.read("Who runs?", CONTEXT, top_k=6)
    assert len(found) == 6 and len({(one["start"], one["end"]) for one in found}) == 6
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True) and all(0 < score < 1 for score in scores)
    for one in found:
        assert CONTEXT[one["start"] : one["end"]] == one["answer"]
    (none,) = [one for one in found if not one["answer"]]
    assert (none["start"], none["end"]) == (0, 0)
    assert none["score"] == pytest.approx(
        probability(model, "Who runs?", CONTEXT, NO_ANSWER), rel=1e-3, abs=0
    )


def test_the_score_is_the_probability_that_exactly_this_is_written(model):
    """The answer and what ends it, as the engine scores the whole text."""
    asker = Asker(model)
    asked = asker.question("Who?", "The fox.")
    best = max(
        (one for one in model.read("Who?", "The fox.", top_k=9) if one["answer"]), key=lambda o: o["score"]
    )
    whole = asker.whole(asked, asked.lead + best["answer"])
    before = len(asker.ids(asked))
    logprobs = model.engine.score([whole], top=model.engine.backend.vocab_size)[0]
    ends = reading.end_ids(asker)
    following = model.engine.score([[*whole, end] for end in ends])
    ended = [score.logprobs[before - 1 :].sum() for score in following]
    exact = [math.exp(value) for value in ended]
    cut = math.exp(logprobs.logprobs[before - 1 :].sum())  # at the end of the context nothing has to end it
    assert any(best["score"] == pytest.approx(value, rel=1e-3, abs=0) for value in [*exact, cut])


def test_a_conversation_is_answered_without_a_space_before_the_answer(chatting):
    for one in chatting.read("Who runs?", CONTEXT, top_k=4):
        assert CONTEXT[one["start"] : one["end"]] == one["answer"]
    (end,) = Asker(chatting).turn_ends
    assert reading.end_ids(Asker(chatting))[0] == end


def test_long_contexts_are_read_through_windows(model, monkeypatch):
    """A window for every part; the answer's place is that in the whole context."""
    context = "".join(f"{n}: The fox runs. " for n in range(100))
    asked: list[str] = []
    plain = Asker.question
    monkeypatch.setattr(Asker, "question", lambda self, q, c: asked.append(c) or plain(self, q, c))
    (best, *_) = model.read("Who runs?", context, top_k=5)
    parts = [part for part in asked if part]
    assert len(parts) > 5 and parts[0] == context[: len(parts[0])] and context.endswith(parts[-1])
    assert context[best["start"] : best["end"]] == best["answer"]
    every = model.read("Who runs?", context, top_k=99)
    assert max(one["start"] for one in every) > len(context) - len(parts[-1])  # of the last window too
    covered = 0
    for part in parts:  # no character between two windows
        place = context.index(part)
        assert place <= covered
        covered = max(covered, place + len(part))
    assert covered == len(context)


def test_no_answer_is_as_probable_as_in_its_least_window(model):
    context = "".join(f"{n}: The fox runs. " for n in range(40))
    none = next(one for one in model.read("Who?", context, top_k=99) if not one["answer"])
    asker = Asker(model)
    parts = reading._windows(model, asker, 0, "Who?", context, reading.MAX_ANSWER_TOKENS)
    each = [probability(model, "Who?", part.context, NO_ANSWER) for part in parts]
    assert len(each) > 1 and none["score"] == pytest.approx(min(each), rel=1e-3, abs=0)


def test_many_pairs_are_read_as_each_alone(model):
    pairs = [("Who runs?", CONTEXT), ("谁?", "春眠不觉晓，处处闻啼鸟。"), ("Where to?", CONTEXT)]
    assert model.read_all(pairs, top_k=2) == [model.read(*pair, top_k=2) for pair in pairs]


def test_a_context_without_words_has_no_answer(model):
    assert [one["answer"] for one in model.read("Who?", "...", top_k=3)] == [""]


@pytest.mark.parametrize(
    ("question", "context", "message"),
    [
        ("", "The fox.", "an empty question"),
        ("Who?", " \n", "an empty context"),
        ("Who? " * 200, "The fox.", "the window holds 256"),
    ],
)
def test_refused(model, question, context, message):
    with pytest.raises(Refused, match=message):
        model.read(question, context)
    with pytest.raises(UsageError, match="at least 1"):
        model.read("Who?", "The fox.", top_k=0)


def test_answers_end_where_they_are_ended(model):
    """Greedy among what may follow: what is written first has the largest probability of all beginnings."""
    settings = SamplingSettings(temperature=0, max_new_tokens=1)
    asker = Asker(model)
    asked = asker.question("Who runs?", CONTEXT)
    from ownlm.engine.requests import Request
    from ownlm.task_methods.requests import run_requests
    from ownlm.task_methods.spans import SpanConstraint, Text

    form = SpanConstraint(Text.of(CONTEXT), reading.spelling_of(model), reading.end_ids(asker), spaced=True)
    ids = asker.ids(asked)
    ((event,),) = run_requests(model, [Request(ids, settings, constraint=form)])
    (scores,) = model.engine.score([[*ids, event.token_id]], top=model.engine.backend.vocab_size)
    order = scores.top_ids[-1][form.mask()[scores.top_ids[-1]]]
    assert order[0] == event.token_id
