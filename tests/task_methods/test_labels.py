"""Classification by the likelihood of labels: the numbers, calibration, windows, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from ownlm.console.errors import Refused, UsageError
from ownlm.task_methods.asking import Asker
from ownlm.task_methods.labels import CONTENT_FREE
from ownlm.tasks.text_forms import listed

LABELS = ["good", "bad", "neither good nor bad"]  # several tokens, one the beginning of another's words


def by_hand(model, text: str) -> np.ndarray:
    """log p(label | prompt) relative to the others, from scores of whole texts."""
    asker = Asker(model)
    asked = asker.labels(text, LABELS)
    totals = []
    for label in LABELS:
        ids = asker.whole(asked, asked.lead + label)
        logprobs = model.engine.score([ids])[0].logprobs
        before = len(asker.ids(asked))
        totals.append(logprobs[before - 1 :].sum())
    totals = np.array(totals)
    return totals - np.log(np.exp(totals).sum())


def test_probabilities_are_those_of_the_labels_over_those_after_texts_that_say_nothing(model):
    (found,) = model.classify("The fox runs home.", LABELS, top_k=None)
    null = np.mean([np.exp(by_hand(model, text)) for text in CONTENT_FREE], axis=0)
    expected = np.exp(by_hand(model, "The fox runs home.")) / null
    expected /= expected.sum()
    scores = {one["label"]: one["score"] for one in found}
    assert [scores[label] for label in LABELS] == pytest.approx(expected.tolist(), rel=1e-5)
    assert [one["score"] for one in found] == sorted(scores.values(), reverse=True)
    assert sum(scores.values()) == pytest.approx(1)


def test_a_model_that_was_taught_labels_is_not_calibrated(model, monkeypatch):
    monkeypatch.setitem(model.run, "taught", ["classification"])
    monkeypatch.setitem(model.run, "labels", LABELS)
    (found,) = model.classify("The fox runs home.", top_k=None)
    expected = np.exp(by_hand(model, "The fox runs home."))
    assert {one["label"]: one["score"] for one in found} == pytest.approx(
        dict(zip(LABELS, expected.tolist())), rel=1e-5
    )
    # Some of them are weighed after the prompt that names all of them, as in training.
    (two,) = model.classify("The fox runs home.", LABELS[:2], top_k=None)
    expected = expected[:2] / expected[:2].sum()
    assert {one["label"]: one["score"] for one in two} == pytest.approx(
        dict(zip(LABELS, expected.tolist())), rel=1e-5
    )


def test_a_text_does_not_depend_on_those_beside_it(model):
    texts = ["The fox runs.", "春眠不觉晓", "A river " * 30]
    together = model.classify(texts, LABELS, top_k=None)
    assert together == [model.classify(text, LABELS, top_k=None)[0] for text in texts]


def test_in_a_conversation_the_label_is_a_whole_turn(chatting):
    """The end of the turn counts, so "a" does not stand for "a b" too."""
    asker = Asker(chatting)
    asked = asker.labels("x", ["a", "b"])
    prompt, answers = asker.split(asked, ["a", "b"])
    (end,) = asker.turn_ends
    total = [
        chatting.engine.score([[*prompt, *one, end]])[0].logprobs[len(prompt) - 1 :].sum() for one in answers
    ]
    null = []
    for text in CONTENT_FREE:
        ids, own = asker.split(asker.labels(text, ["a", "b"]), ["a", "b"])
        scores = [chatting.engine.score([[*ids, *one, end]])[0].logprobs[len(ids) - 1 :].sum() for one in own]
        null.append(np.exp(scores) / np.exp(scores).sum())
    expected = np.exp(total) / np.exp(total).sum() / np.mean(null, axis=0)
    found = {one["label"]: one["score"] for one in chatting.classify("x", ["a", "b"], top_k=None)[0]}
    assert [found["a"], found["b"]] == pytest.approx((expected / expected.sum()).tolist(), rel=1e-5)


def test_a_hundred_thousand_characters_are_read_through_windows(model, capsys):
    text = "The fox runs to the sea. " * 4_000
    (found,) = model.classify([text], ["good", "bad"], top_k=None)
    assert sum(one["score"] for one in found) == pytest.approx(1)
    assert "1 of 1 texts do not fit the window of 256 tokens" in capsys.readouterr().err


def test_windows_count_all_alike(model):
    """The mean of log-probabilities: the order of the windows' texts does not matter, each of them does."""
    first, second = "fox " * 60, "river " * 60
    both = model.classify(first + second, ["good", "bad"], top_k=None)[0]
    only = model.classify(first + first, ["good", "bad"], top_k=None)[0]
    assert both != only


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["good"], "a choice needs two"),
        (["good", " "], "an empty label"),
        (["good", "good"], '"good" is there twice'),
        (None, "no labels to choose from"),
    ],
)
def test_labels_that_are_no_choice(model, labels, message):
    with pytest.raises(UsageError, match=message):
        model.classify("x", labels)


def test_empty_text_and_a_window_that_holds_no_text(model):
    with pytest.raises(Refused, match="an empty text") as refused:
        model.classify(["x", " \n"], ["good", "bad"])
    assert refused.value.where == "text 1"
    with pytest.raises(Refused, match="the window holds 256"):
        model.classify("x", ["good", "bad " * 200])
    with pytest.raises(UsageError, match="at least 1"):
        model.classify("x", ["good", "bad"], top_k=0)


def test_lists_read_as_people_write_them():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b or c"
