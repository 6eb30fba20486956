"""Translations, summaries and completions by a causal model: what it is asked, what fits, what is said."""

from __future__ import annotations

import shutil

import pytest

from ownlm.console.errors import Refused, UsageError
from ownlm.loaded import load
from ownlm.predicting import predictions
from ownlm.task_methods.asking import Asker
from ownlm.tasks.items import Chat, Labelled, Pair, Question
from ownlm.tasks.prompts import as_chat, as_plain
from ownlm.tasks.render import render_chat, render_pair
from ownlm.tasks.templates import BUILT_IN, find_template

PAIR = Pair("f:1", "The fox runs home. 春眠", " Der Fuchs läuft heim.", languages=("en", "de"))


def trained_prefix(row) -> list[int]:
    return row.ids[: row.trained.index(True)]


@pytest.mark.parametrize("template", BUILT_IN)
@pytest.mark.parametrize("task", ["translation", "summarization"])
def test_a_model_is_asked_as_it_was_trained(wide, tmp_path, template, task):
    """The ids of the prompt are those before the answer in training, for every built-in template."""
    shutil.copytree(wide, tmp_path / "run")
    (tmp_path / "run/chat_template.jinja").write_text(BUILT_IN[template])
    model = load(tmp_path / "run")
    row = render_chat(as_chat(PAIR, task), find_template(model.tokenizer, model.path, None), model.tokenizer)
    asker = Asker(model)
    assert asker.ids(asker.item(PAIR, task)) == trained_prefix(row)
    assert asker.stop_ids[0] == row.ids[len(row.trained) - 1 - row.trained[::-1].index(True)]


def test_a_completion_is_asked_for_as_it_was_trained(model, monkeypatch):
    asker = Asker(model)
    row = render_pair(PAIR, model.tokenizer)
    assert asker.ids(asker.item(PAIR, "completion")) == trained_prefix(row)
    monkeypatch.setitem(
        model.run, "taught", ["translation"]
    )  # without a template: the source and a line break
    row = render_pair(as_plain(PAIR, "translation"), model.tokenizer)
    assert asker.ids(asker.item(PAIR, "translation")) == trained_prefix(row)


def test_a_model_of_plain_text_is_asked_in_plain_text(model):
    asker = Asker(model)
    assert asker.pair("translation", "A fox", ("en", "de")).text == "English: A fox\nGerman:"
    assert asker.pair("translation", "A fox", ("", "de")).text == "Text: A fox\nGerman:"
    assert asker.pair("summarization", "A fox").text == "A fox\n\nTL;DR:"


def test_what_is_written_is_the_greedy_continuation_up_to_the_end_of_the_line(model):
    (found,) = model.translate("A fox", to="de", from_="en", max_new_tokens=12)
    prompt = "English: A fox\nGerman:"
    plain = model.generate(prompt, completion_only=True, temperature=0, max_new_tokens=12, stop="\n")
    assert found == {"translation_text": plain.strip()}
    assert model.translate("A fox", to="German", from_="eng", max_new_tokens=12) == [found]
    (summary,) = model.summarize("A fox", max_new_tokens=7)
    plain = model.generate(
        "A fox\n\nTL;DR:", completion_only=True, temperature=0, max_new_tokens=7, stop="\n"
    )
    assert summary == {"summary_text": plain.strip()}


def test_many_texts_give_what_each_gives_alone(model):
    texts = ["A fox", "The river runs to the sea.", "春眠"]
    assert model.translate(texts, to="de", max_new_tokens=9) == [
        model.translate(text, to="de", max_new_tokens=9)[0] for text in texts
    ]


def test_a_long_text_is_refused_or_cut_when_that_is_asked_for(model, capsys, monkeypatch):
    long = "The fox runs to the sea. " * 4_000  # 100,000 characters
    with pytest.raises(Refused, match=r"tokens with what is asked; there is room for 240") as refused:
        model.translate(["A fox", long], to="de")
    assert refused.value.where == "text 1" and "--truncate" in str(refused.value)
    cut = model.translate(["A fox", long], to="de", truncate=True, max_new_tokens=4)
    assert "1 of 2 texts did not fit the window and were cut" in capsys.readouterr().err
    assert len(cut) == 2
    # What is left of it is as long as it can be.
    asked: list[int] = []
    plain = Asker.prompt
    monkeypatch.setattr(
        Asker, "prompt", lambda self, one: asked.append(len(self.ids(one))) or plain(self, one)
    )
    assert model.translate(long, to="de", truncate=True, max_new_tokens=4) == [cut[1]]
    assert 248 <= asked[-1] <= 252


def test_answers_that_were_cut_are_counted(model, capsys):
    model.summarize(["A fox", "A river"], max_new_tokens=1)
    assert "2 of 2 answers were cut at their length" in capsys.readouterr().err


def test_the_languages_of_training_are_named_and_others_refused(chatting, monkeypatch):
    monkeypatch.setitem(chatting.run, "taught", ["chat", "translation"])
    monkeypatch.setitem(chatting.run, "data", {"languages": ["en", "de"]})
    asked: list[str] = []
    plain = Asker.conversation
    monkeypatch.setattr(
        Asker,
        "conversation",
        lambda self, m, chat=None: asked.append(m[0]["content"]) or plain(self, m, chat),
    )
    chatting.translate("A fox", to="de", max_new_tokens=1)
    assert asked[-1] == "Translate from English to German:\n\nA fox"
    with pytest.raises(UsageError, match="French; this model was trained from English to German"):
        chatting.translate("A fox", to="fr")
    with pytest.raises(UsageError, match="German; this model was trained from English"):
        chatting.translate("A fox", to="de", from_="de")


def test_predictions_of_every_task_in_words(chatting):
    """The contract of `evaluation.tasks.predictions`, one a row and in order."""
    turns = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The fox."})
    chat = predictions(chatting, "chat", [Chat("f:1", turns), Chat("f:2", turns * 2)], max_new_tokens=5)
    assert [set(one) for one in chat] == [{"text", "finish_reason"}] * 2
    assert chat[0]["text"] == chatting.chat([turns[0]], temperature=0, max_new_tokens=5).text
    assert chat[1]["text"] == chatting.chat([*turns, turns[0]], temperature=0, max_new_tokens=5).text
    pairs = predictions(chatting, "translation", [PAIR], max_new_tokens=5)
    assert pairs[0]["finish_reason"] in ("stop", "length")
    rows = [Labelled("f:1", "good fox", "good"), Labelled("f:2", "bad fox", "bad")]
    for one in predictions(chatting, "sentiment", rows):
        assert set(one["scores"]) == {"good", "bad"} and one["label"] == max(
            one["scores"], key=one["scores"].get
        )
    (answer,) = predictions(chatting, "qa", [Question("f:1", "The fox runs.", "Who?", ())])
    assert set(answer) == {"answer", "score", "start", "end"}
    assert predictions(chatting, "qa", []) == []


def test_predictions_that_a_model_cannot_give(model):
    turns = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The fox."})
    with pytest.raises(Refused, match="no chat template"):
        predictions(model, "chat", [Chat("f:1", turns)])
    with pytest.raises(Refused, match="gives no tags to words"):
        model.tag("x")
    with pytest.raises(Refused, match="no turn of the assistant") as refused:
        predictions(model, "chat", [Chat("f:7", turns[:1])])
    assert refused.value.where == "f:7"
    with pytest.raises(Refused) as refused:
        predictions(model, "translation", [PAIR, Pair("f:2", "x " * 9999, "")])
    assert refused.value.where == "f:2"
