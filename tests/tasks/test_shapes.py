"""Shapes by their columns, and what a row of each becomes."""

from __future__ import annotations

import json

import pytest

from ownlm.console.errors import Refused, UsageError
from ownlm.tasks.dataset import read_dataset
from ownlm.tasks.items import Answer, Chat, Pair, Question, Tagged
from tests.tasks.files import CHAT, turns, write_jsonl

MESSAGES = tuple(CHAT["messages"])
SHAREGPT = {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "The fox."}]}


def one(tmp_path, row, **options):
    found = read_dataset([write_jsonl(tmp_path / "rows.jsonl", [row])], **options)
    assert found.problems.left_out == {}, found.problems.kept
    return next(found.items()), found


@pytest.mark.parametrize(
    ("row", "task", "messages"),
    [
        (CHAT, "chat", MESSAGES),
        (SHAREGPT, "chat", MESSAGES),
        (SHAREGPT | {"system": "Be short."}, "chat", ({"role": "system", "content": "Be short."}, *MESSAGES)),
        ({"instruction": "Who?", "input": "", "output": "The fox."}, "chat", MESSAGES),
        ({"instruction": "Who?", "output": "The fox.", "history": [], "system": None}, "chat", MESSAGES),
        (
            {"prompt": turns("Who?"), "completion": turns("The fox.", first="assistant")},
            "completion",
            MESSAGES,
        ),
    ],
)
def test_every_form_of_a_conversation_becomes_the_same_messages(tmp_path, row, task, messages):
    item, found = one(tmp_path, row)
    assert isinstance(item, Chat)
    assert (item.messages, found.task) == (messages, task)


def test_alpaca_with_input_history_and_system(tmp_path):
    row = {
        "instruction": "Translate",
        "input": "fox",
        "output": "Fuchs",
        "system": "S",
        "history": [["a", "b"]],
    }
    item, _ = one(tmp_path, row)
    assert [(m["role"], m["content"]) for m in item.messages] == [
        ("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "Translate\nfox"), ("assistant", "Fuchs"),
    ]  # fmt: skip


def test_tool_calls_of_sharegpt_become_those_of_transformers(tmp_path):
    call = {"name": "find", "arguments": {"what": "fox"}}
    row = {
        "conversations": [
            {"from": "human", "value": "Find it"},
            {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": "here"},
            {"from": "gpt", "value": "Found."},
        ],
        "tools": json.dumps([{"name": "find"}]),
    }
    item, _ = one(tmp_path, row)
    assert item.messages[1]["tool_calls"] == [{"type": "function", "function": call}]
    assert item.messages[2]["role"] == "tool"
    assert item.tools == ({"name": "find"},)


@pytest.mark.parametrize(
    ("row", "task", "item"),
    [
        ({"prompt": "a", "completion": "b"}, "completion", Pair("", "a", "b")),
        ({"question": "a", "answer": "b"}, "completion", Pair("", "a", "b")),
        ({"tokens": ["a", "b"], "tags": ["O", "B-X"]}, "ner", Tagged("", ("a", "b"), ("O", "B-X"))),
        ({"tokens": ["a"], "ner_tags": [3], "id": 7}, "ner", Tagged("", ("a",), ("3",))),
        ({"source": "a", "target": "b"}, "translation", Pair("", "a", "b")),
        ({"en": "a", "zh": "b", "id": 4}, "translation", Pair("", "a", "b", languages=("en", "zh"))),
        ({"translation": {"fr": "a", "en": "b"}}, "translation", Pair("", "a", "b", languages=("fr", "en"))),
        ({"document": "a", "summary": ["b", "c"]}, "summarization", Pair("", "a", "b", ("c",))),
        ({"source": ["a.", "b."], "target": ["c"]}, "summarization", Pair("", "a. b.", "c")),
    ],
)  # fmt: skip
def test_a_row_of_each_shape(tmp_path, row, task, item):
    found, data = one(tmp_path, row)
    assert data.task == task
    assert found == type(item)(
        f"{tmp_path}/rows.jsonl:1", *[getattr(item, f) for f in type(item).__slots__[1:]]
    )


@pytest.mark.parametrize(
    ("answers", "expected", "told"),
    [
        ({"text": ["fox"], "answer_start": [4]}, (Answer("fox", 4),), {}),
        ([{"text": "fox", "answer_start": 4}, {"text": "fox", "answer_start": 4}], (Answer("fox", 4),), {}),
        (["fox"], (Answer("fox", 4),), {}),
        ("fox", (Answer("fox", 4),), {}),
        ({"text": ["fox"], "answer_start": [9]}, (Answer("fox", 13),), {"answer_start does not fit": 1}),
        ({"text": [], "answer_start": []}, (), {}),
        (None, (), {}),
        (
            ["wolf", "bear"],
            (Answer("wolf", None), Answer("bear", None)),
            {"an answer is not in its context": 1},
        ),
    ],
)
def test_answers_in_every_form_and_their_places(tmp_path, answers, expected, told):
    row = {"context": "The fox sees fox.", "question": "Who?", "answers": answers}
    item, found = one(tmp_path, row)
    assert isinstance(item, Question)
    assert item.answers == expected
    assert found.problems.told == told


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], '"messages" is empty'),
        (turns("a"), "no answer of the assistant"),
        (turns("a", "b", first="assistant"), "the assistant speaks first"),
        ([*turns("a"), *turns("b", "c")], 'two "user" turns in a row'),
        ([*turns("a", "b"), {"role": "system", "content": "s"}], "a system text that is not the first turn"),
        ([{"role": "tool", "content": "x"}, *turns("a", "b")], "a tool answers nobody"),
        ([{"role": "narrator", "content": "x"}], "unknown role"),
        ([{"content": "x"}], "a message has no role"),
        ([*turns("a"), {"role": "assistant", "content": ""}], '"content" is empty'),
        ("hello", '"messages" is not a list'),
    ],
)
def test_conversations_out_of_order(tmp_path, messages, reason):
    path = write_jsonl(tmp_path / "rows.jsonl", [CHAT, {"messages": messages}])
    found = read_dataset([path])
    assert found.problems.left_out == {reason: 1}
    assert str(found.problems.kept[0]).startswith(f"{path}:2: {reason}")
    assert len(list(found.items())) == 1


def test_a_last_turn_of_the_user_is_told(tmp_path):
    _, found = one(tmp_path, {"messages": turns("a", "b", "c")})
    assert found.problems.told == {"ends with a turn that is not the assistant's": 1}


def test_space_around_labels_is_taken_away_and_told(tmp_path):
    rows = [{"text": "x", "label": " very good "}, {"text": "y", "label": 1}, {"text": "z", "label": True}]
    found = read_dataset([write_jsonl(tmp_path / "rows.jsonl", rows)])
    assert [item.label for item in found.items()] == ["very good", "1", "true"]
    assert found.problems.told == {"space around a label": 1}


def test_rows_of_another_shape_in_the_middle_are_named_with_their_shape(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [CHAT, CHAT, {"text": "a", "label": "b"}, CHAT])
    found = read_dataset([path])
    assert (found.shape.name, found.rows, len(list(found.items()))) == ("messages", 4, 3)
    assert str(found.problems.kept[0]) == (
        f"{path}:3: not of the shape messages (text, label). It looks like text/label: put it into a file of its own."
    )


def test_map_gives_columns_their_roles(tmp_path):
    row = {"abst": "long", "name": "short", "summary": "not this"}
    item, found = one(tmp_path, row, maps=["abst=document", "name=summary"])
    assert (item.source, item.target, found.task) == ("long", "short", "summarization")
    assert one(tmp_path, CHAT | row, maps=["abst=document", "name=summary"])[1].task == "summarization"
    assert one(tmp_path, {"de": "a", "fr": "b", "en": "c"}, maps=["fr=source", "de=target"])[0].source == "b"


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (["abst"], "is not column=role"),
        (["abst=documnet"], 'Did you mean "document"'),
        (["abts=document"], 'Did you mean "abst"'),
        (["abst=document", "name=document"], "given twice"),
    ],
)
def test_a_map_that_is_wrong(tmp_path, maps, message):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"abst": "long", "name": "short"}])
    with pytest.raises(UsageError, match=message):
        read_dataset([path], maps=maps)


def test_columns_that_fit_nothing_are_refused_with_a_map_that_would(tmp_path):
    path = write_jsonl(
        tmp_path / "rows.jsonl", [{"abst": "a long text " * 9, "name": f"short {i}"} for i in range(30)]
    )
    with pytest.raises(Refused, match=r"They are: abst, name") as refusal:
        read_dataset([path])
    assert "--map abst=document --map name=summary" in refusal.value.do
    path = write_jsonl(
        tmp_path / "rows.jsonl", [{"title": f"text {i}", "field": "ab"[i % 2]} for i in range(30)]
    )
    with pytest.raises(Refused) as refusal:
        read_dataset([path])
    assert "--map title=text --map field=label" in refusal.value.do


def test_texts_alone_are_for_pretraining(tmp_path):
    with pytest.raises(Refused, match="for pretraining") as refusal:
        read_dataset([write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])])
    assert refusal.value.do.startswith("ownlm prepare")


def test_the_task_chooses_between_shapes(tmp_path):
    row = {"source": "a", "target": "b"}
    assert one(tmp_path, row)[1].task == "translation"
    assert one(tmp_path, row, task="summarization")[1].task == "summarization"
    with pytest.raises(Refused, match="no shape of the task ner"):
        one(tmp_path, row, task="ner")
    assert one(tmp_path, {"text": "a", "label": "b"}, task="sentiment")[1].task == "sentiment"
