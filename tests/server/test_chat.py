"""`/v1/chat/completions`: the model's template, forms, streams, and what is refused by name."""

from __future__ import annotations

import json

import pytest

from tests.server.conftest import CONTEXT
from tests.server.live import CHAT, Live, live

ROUTE = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "name": {"enum": ["fox", "hen"]}},
    "required": ["ok", "name"],
    "additionalProperties": False,
}


def answer(server: Live, messages: list[dict[str, object]] = CHAT, **fields: object) -> str:  # type: ignore[assignment]
    found = server.ok(ROUTE, messages=messages, **{"max_tokens": 12, "seed": 4, **fields})
    return str(found["choices"][0]["message"]["content"])


def test_the_shape_of_an_answer(server):
    found = server.ok(ROUTE, messages=CHAT, max_completion_tokens=3, max_tokens=50, seed=1)
    assert found["id"].startswith("chatcmpl-")
    assert found["object"] == "chat.completion"
    assert found["usage"]["completion_tokens"] <= 3
    (choice,) = found["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": choice["message"]["content"],
        "refusal": None,
    }
    assert choice["logprobs"] is None
    prompt = server.ok("/tokenize", messages=CHAT)
    assert found["usage"]["prompt_tokens"] == prompt["count"]
    assert prompt["prompt"] == "<|im_start|>user\nThe quick<|im_end|>\n<|im_start|>assistant\n"


def test_the_ids_are_those_of_training(server):
    from ownlm.tasks.items import Chat
    from ownlm.tasks.render import render_chat

    model = server.state.models.first
    turns = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The fox."})
    row = render_chat(Chat("", turns), model.template, model.tokenizer)
    asked = server.ok("/tokenize", messages=[turns[0]])["tokens"]
    assert asked == row.ids[: row.trained.index(True)]


def test_the_text_is_that_of_the_model(server):
    prompt = server.ok("/tokenize", messages=CHAT)["tokens"]
    own = server.ok("/v1/completions", prompt=prompt, max_tokens=12, seed=4, stop_token_ids=[2])
    assert answer(server) == own["choices"][0]["text"]


def test_an_answer_ends_with_the_token_of_the_template(server):
    end = server.state.models.first.tokenizer.special_ids["<|im_end|>"]
    found = server.ok(ROUTE, messages=CHAT, logit_bias={str(end): 100}, max_tokens=5)
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["choices"][0]["message"]["content"] == ""


def test_parts_developer_and_what_clients_send_back(server):
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The quick"}]
    parts = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        },
        {"role": "user", "content": [{"type": "text", "text": "The quick"}]},
    ]
    assert answer(server, parts) == answer(server, plain) != answer(server)
    back = {"role": "assistant", "content": "Yes", "refusal": None, "annotations": [], "audio": None}
    back |= {"function_call": None, "tool_calls": None}
    assert answer(server, [*plain, back, *CHAT]) == answer(
        server, [*plain, {"role": "assistant", "content": "Yes"}, *CHAT]
    )


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "bot", "content": "x"}, "messages"),
        ({"role": "user"}, "messages.0.content"),
        ({"role": "user", "content": 3}, "messages"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "messages"),
        ({"role": "user", "content": "x", "name": "Ann"}, "messages.0.name"),
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, "messages"),
    ],
)
def test_messages_that_are_refused(server, message, param):
    assert server.refused(ROUTE, messages=[message])["param"] == param


def test_tools_are_refused_by_name(server):
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    error = server.refused(ROUTE, messages=CHAT, tools=[tool])
    assert (error["param"], error["code"]) == ("tools", "unsupported_field")
    assert "tools is not supported" in error["message"]
    answer(server, tools=[], tool_choice="auto", parallel_tool_calls=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me"}, {"metadata": {"a": "b"}}, {"store": False}, {"service_tier": "auto"}, {"safety_identifier": "x"},
        {"prompt_cache_key": "x"}, {"reasoning_effort": "low"}, {"modalities": ["text"]}, {"verbosity": "medium"},
        {"logit_bias": {}}, {"stop": None}, {"response_format": {"type": "text"}}, {"top_logprobs": 0},
    ],
    ids=str,
)  # fmt: skip
def test_fields_that_ask_for_nothing_change_nothing(server, fields):
    assert answer(server, **fields) == answer(server)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"store": True}, "store is not supported"), ({"store": 0}, "store is not supported"), ({"temprature": 1}, 'Did you mean "temperature"?'),
        ({"temperature": "1"}, "temperature must be a number"), ({"temperature": 3}, "from 0 to 2"),
        ({"n": True}, "n must be"), ({"n": 0}, "n must be"), ({"max_tokens": 0}, "above 0"),
        ({"stream": 1}, "stream must be"), ({"stop": ""}, "stop must be"), ({"top_logprobs": 2}, "needs logprobs"),
        ({"service_tier": "flex"}, "service_tier is not supported"), ({"seed": 1.5}, "seed must be"),
        ({"response_format": {"type": "xml"}}, "response_format must be"), ({"messages": []}, "messages must be"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"), ({"metadata": 3}, "metadata must be"),
    ],
    ids=str,
)  # fmt: skip
def test_other_values_are_refused_by_name(server, fields, words):
    error = server.refused(ROUTE, **{"messages": CHAT, **fields})
    assert words in error["message"]
    assert error["param"] in error["message"]


def test_a_model_without_a_template_is_refused_and_one_with_a_given_template_answers(model_folder, server):
    assert answer(server) is not None
    with live(model_folder, chat_template=None) as plain:
        error = plain.refused(ROUTE, messages=CHAT)
        assert error["code"] == "no_chat_template"
        assert "--chat-template" in error["message"]
        assert plain.refused("/tokenize", messages=CHAT)["code"] == "no_chat_template"
        assert plain.ok("/v1/completions", prompt="The", max_tokens=1)


def test_what_the_template_refuses_is_told(model_folder, tmp_path):
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{{ raise_exception('only one turn') if messages|length > 1 }}Q: {{ messages[0].content }}\n"
    )
    with live(model_folder, chat_template=str(template)) as strict:
        error = strict.refused(ROUTE, messages=[*CHAT, *CHAT])
        assert error["code"] == "refused_by_template"
        assert "only one turn" in error["message"]
        assert strict.ok("/tokenize", messages=CHAT)["prompt"] == "Q: The quick"


def test_a_conversation_that_does_not_fit_is_refused_with_both_numbers(server):
    error = server.refused(ROUTE, messages=[{"role": "user", "content": "The quick " * 90}])
    assert error["param"] == "messages"
    assert f"holds {CONTEXT} tokens; the prompt has" in error["message"]
    error = server.refused(ROUTE, messages=CHAT, max_tokens=CONTEXT)
    assert f"{CONTEXT} were asked for" in error["message"]
    whole = server.ok(ROUTE, messages=CHAT, ignore_eos=True)["usage"]
    assert whole["total_tokens"] == CONTEXT


# ---- forms


def test_json_by_a_schema_parses_and_validates(server):
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA, "strict": True}}
    for seed in range(5):
        found = json.loads(answer(server, response_format=form, seed=seed, max_tokens=60))
        assert type(found["ok"]) is bool
        assert found["name"] in ("fox", "hen")
    assert json.loads(answer(server, structured_outputs={"json": SCHEMA}, max_tokens=60))


def test_any_json_object(server):
    found = server.ok(ROUTE, messages=CHAT, response_format={"type": "json_object"}, max_tokens=60)[
        "choices"
    ][0]
    assert found["message"]["content"].startswith("{")
    if found["finish_reason"] == "stop":
        assert isinstance(json.loads(found["message"]["content"]), dict)


def test_one_of_several_texts(server):
    assert answer(server, structured_outputs={"choice": ["yes", "no"]}) in ("yes", "no")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}, '"not"'),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"tipe": 1}}}}, '"tipe"'),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"structured_outputs": {}}, "one of json and choice"),
        ({"structured_outputs": {"choice": ["a"], "json": {}}}, "one of json and choice"),
        ({"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}}, "one of json and choice"),
    ],
)  # fmt: skip
def test_forms_that_cannot_be_followed_are_refused_by_name(server, fields, words):
    error = server.refused(ROUTE, messages=CHAT, **fields)
    assert words in error["message"]
    assert error["param"] == next(iter(fields))


# ---- streams and log-probabilities


@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"stop": "a"}, {"logprobs": True, "top_logprobs": 2}])
def test_a_stream_is_the_text_of_the_answer(server, fields):
    asked = {"messages": CHAT, "max_tokens": 20, "seed": 4, **fields}
    whole = server.ok(ROUTE, **asked)["choices"]
    events = server.events(ROUTE, **asked, stream_options={"include_usage": True})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == server.ok(ROUTE, **asked)["usage"]
    texts = ["" for _ in whole]
    entries: list[list[object]] = [[] for _ in whole]
    for event in events[:-1]:
        assert event["object"] == "chat.completion.chunk"
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        entries[choice["index"]] += (choice["logprobs"] or {"content": []})["content"]
    for number, choice in enumerate(whole):
        mine = [e["choices"][0] for e in events[:-1] if e["choices"][0]["index"] == number]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert mine[-1]["delta"] == {}
        assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
        assert texts[number] == choice["message"]["content"]
        assert entries[number] == (choice["logprobs"] or {"content": []})["content"]


def test_log_probabilities_of_a_conversation(server):
    choice = server.ok(ROUTE, messages=CHAT, max_tokens=4, seed=1, logprobs=True, top_logprobs=3)["choices"][
        0
    ]
    content = choice["logprobs"]["content"]
    assert len(content) == 4
    for entry in content:
        assert len(entry["top_logprobs"]) == 3
        assert entry["logprob"] <= entry["top_logprobs"][0]["logprob"]
        assert not entry["token"].startswith("bytes:") or entry["bytes"]
    text = b"".join(bytes(e["bytes"]) for e in content if not e["token"].startswith("<|")).decode(
        "utf-8", "ignore"
    )
    assert text == choice["message"]["content"].rstrip("\ufffd") or "\ufffd" in choice["message"]["content"]
    bare = server.ok(ROUTE, messages=CHAT, max_tokens=2, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert bare[0]["top_logprobs"] == []
