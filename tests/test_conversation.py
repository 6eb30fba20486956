"""Conversations: the ids of training, what ends an answer, what is left out when the window is full."""

from __future__ import annotations

import json

import pytest

import ownlm
from ownlm.console.errors import Refused, UsageError
from ownlm.conversation import ANSWER_TOKENS, Conversation, chat_prompt, checked
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.engine.constrained import matching
from ownlm.tasks.answer_end import answer_ends
from ownlm.tasks.items import Chat
from ownlm.tasks.render import render_chat
from ownlm.tasks.templates import BUILT_IN, ChatTemplate, find_template
from tests.tasks.files import turns
from tests.tasks.models import TEMPLATES, model_folder

ALL_TEMPLATES = BUILT_IN | {f"models: {name}": source for name, source in TEMPLATES.items()}
SYSTEM = {"role": "system", "content": "简短地回答。Be short."}
TALKS = [
    turns("Who runs?", "The fox runs home.", "Who?", "The fox.", "And then?", "It rests."),
    turns("春眠不觉晓？", "处处闻啼鸟。", "夜来风雨声？", "花落知多少。🦊", "再说一遍", "好。"),
    [SYSTEM, *turns("Who?", "The fox.", "谁？", "狐狸。")],
    turns("  spaces  ", "```\n  code\n```", "\n\nlines\n", "x"),
]


@pytest.fixture(scope="module")
def model(talker):
    return ownlm.load(talker)


@pytest.mark.parametrize("name", [name for name in ALL_TEMPLATES if "no header" not in name])
@pytest.mark.parametrize("talk", TALKS, ids=range(len(TALKS)))
def test_what_the_model_reads_is_the_beginning_of_what_it_was_trained_on(name, talk, tmp_path, corpus):
    """Also where it is asked for a later answer: all before it is the same."""
    folder = model_folder(tmp_path / "model", corpus, ALL_TEMPLATES[name])
    tokenizer = Tokenizer.load(folder)
    template = find_template(tokenizer, folder, None)
    if "llama-2" in name and talk[0]["role"] == "system":
        with pytest.raises(Refused, match=r"refuses these messages \(no system here\)"):
            chat_prompt(template, tokenizer, talk[:-1])
        return
    places = [number for number, message in enumerate(talk) if message["role"] == "assistant"]
    # This one writes thoughts before the last answer alone, as models that think do.
    for place in places[-1:] if "thinking" in name else places:
        row = render_chat(Chat("x:1", tuple(talk[: place + 1])), template, tokenizer)
        whole = render_chat(Chat("x:1", tuple(talk)), template, tokenizer)
        prompt = chat_prompt(template, tokenizer, talk[:place])
        assert prompt.ids == row.ids[: len(prompt.ids)]
        assert prompt.ids == whole.ids[: len(prompt.ids)]
        if name in BUILT_IN:  # what is trained begins exactly where the model is asked
            assert row.straddling == 0
            assert row.trained.index(True, len(prompt.ids) - 1) == len(prompt.ids)
        assert (prompt.tokens, prompt.text) == (len(prompt.ids), row.text[: len(prompt.text)])


def test_the_token_that_ends_an_answer_is_found_by_rendering(tmp_path, corpus):
    found = {}
    for name, source in ALL_TEMPLATES.items():
        folder = model_folder(tmp_path / name, corpus, source)
        tokenizer = Tokenizer.load(folder)
        named = {index: token for token, index in tokenizer.special_ids.items()}
        ends = answer_ends(find_template(tokenizer, folder, None), tokenizer)
        found[name] = [named[index] for index in ends]
    others = {"alpaca": ["<|endoftext|>"], "models: llama-2": ["<|endoftext|>"], "models: no header": []}
    assert found == {name: others.get(name, ["<|im_end|>"]) for name in ALL_TEMPLATES}


def test_a_last_answer_may_end_with_another_token(corpus):
    tokenizer = Tokenizer.load(corpus)
    source = BUILT_IN["chatml"].replace(
        "message.content + '<|im_end|>'",
        "message.content + ('<|pad|>' if loop.last and message.role == 'assistant' else '<|im_end|>')",
    )
    ends = answer_ends(ChatTemplate(source, "x", {}), tokenizer)
    assert set(ends) == {tokenizer.special_ids["<|pad|>"], tokenizer.special_ids["<|im_end|>"]}
    silent = ChatTemplate("{{ raise_exception('no') }}", "x", {})
    assert answer_ends(silent, tokenizer) == ()


def test_an_answer_ends_where_the_turn_ends(model):
    """At a temperature at which every token is as probable, some answers hold the end of a turn."""
    conversation = Conversation(model)
    assert conversation.end_ids == (model.tokenizer.special_ids["<|im_end|>"],)
    prompt = conversation.fitted(checked("Who?")).prompt
    shorter = 0
    for seed in range(30):
        options = {"temperature": 90.0, "seed": seed, "max_new_tokens": 60}
        answer = model.chat("Who?", **options)
        further = next(p.completion for p in model.stream(prompt, **options) if p.completion)
        assert further.text.startswith(answer.text)
        assert (answer.prompt_tokens, answer.seed) == (len(prompt.ids), seed)
        if answer.new_tokens < further.new_tokens:
            shorter += 1
            assert answer.finish_reason == "stop"
        else:
            assert answer == further
    assert shorter >= 2


def test_a_form_may_end_with_the_turn(model, monkeypatch):
    end = model.tokenizer.special_ids["<|im_end|>"]
    (letter,) = model.tokenizer.encode("a")
    for ends in ((0,), (0, end)):
        form = matching(model.vocabulary_for(ends), "a+")
        assert not form.mask()[end]
        form.accept(int(letter))
        assert form.mask()[end] == (end in ends)
    asked, plain = [], model.vocabulary_for
    monkeypatch.setattr(model, "vocabulary_for", lambda ends: asked.append(ends) or plain(ends))
    answer = model.chat("Who?", regex="(yes|no)!", max_new_tokens=20, seed=1)
    assert answer.text in ("yes!", "no!") and answer.finish_reason == "stop"
    assert asked == [(*model.stop_ids, end)]
    assert model.chat("Who?", choices=["春", "秋"], seed=1).text in ("春", "秋")
    with pytest.raises(UsageError, match="set together with"):
        model.chat("Who?", choices=["a"], schema={})


def test_messages_system_and_tools_reach_the_template(model, tmp_path):
    talk = [SYSTEM, *turns("Who?", "The fox.", "谁？")]
    expected = model.chat(talk, seed=4, max_new_tokens=12)
    assert expected == model.chat(talk[1:], system=SYSTEM["content"], seed=4, max_new_tokens=12)
    assert expected.text == "".join(p.text for p in model.chat_stream(talk, seed=4, max_new_tokens=12))
    assert expected != model.chat(talk[1:], seed=4, max_new_tokens=12)
    assert model.chat("Who?", seed=4) == model.chat(turns("Who?"), seed=4)
    file = tmp_path / "tools.jinja"
    file.write_text(TEMPLATES["tools"], encoding="utf-8")
    tools = [{"name": "find"}]
    with_tools = model.chat("Who?", tools=tools, chat_template=str(file), seed=1, max_new_tokens=3)
    assert '[{"name": "find"}]' in with_tools.prompt
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "find"}}]}
    answered = [*turns("Who?"), called, {"role": "tool", "content": "fox"}]
    assert "<call>" in model.chat(answered, chat_template=str(file), max_new_tokens=1).prompt


@pytest.mark.parametrize(
    ("messages", "options", "says"),
    [
        ([], {}, "there is no message"),
        (turns("a", "b"), {}, "of the role assistant: there is nothing to answer"),
        ([SYSTEM], {}, "of the role system"),
        ([SYSTEM, *turns("a")], {"system": "x"}, "begin with a system text too"),
        (["a"], {}, r"messages\[0\]: not a message"),
        ([{"content": "a"}], {}, r"messages\[0\]: not a message"),
        (
            [*turns("a", "b"), {"role": "user", "content": ["a"]}],
            {},
            r"messages\[2\]: .* not a text but list",
        ),
        ("a\x00ownlm-generation\x00b", {}, "mark of a template"),
        ("a", {"max_length": 3}, "max_length: a conversation has no such option"),
        ("a", {"num_return_sequences": 2}, "num_return_sequences: a conversation"),
        ("a", {"temperature": -1}, "temperature"),
        ("a", {"chat_template": "chatlm"}, 'Did you mean "chatml"'),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_place(model, messages, options, says):
    with pytest.raises(UsageError, match=says):
        model.chat(messages, **options)


def test_a_template_that_refuses_the_roles_says_so(model, tmp_path):
    strict = tmp_path / "strict.jinja"
    strict.write_text(
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}",
        encoding="utf-8",
    )
    with pytest.raises(Refused, match=r"roles must alternate.*roles are user, user\.") as refusal:
        model.chat([*turns("a"), *turns("b")], chat_template=str(strict))
    assert str(refusal.value).startswith(str(strict))
    strict.write_text("{% if false %}x{% endif %}", encoding="utf-8")
    with pytest.raises(Refused, match="makes nothing of these messages"):
        model.chat("a", chat_template=str(strict))


def test_the_oldest_turns_are_left_out_and_never_the_system_text(model, capsys):
    words = ["The fox runs.", "It rests.", "A river falls.", "春眠不觉晓。", "Rain comes.", "Who waits?"]
    talk = [SYSTEM, *turns(*words, *words, "And?")]
    conversation = Conversation(model)
    room = model.context - model.context // 4
    prompt, left_out = conversation.fitted(talk)
    assert 0 < left_out < len(talk) - 2 and left_out % 2 == 0
    kept = [SYSTEM, *talk[1 + left_out :]]
    assert prompt == chat_prompt(conversation.template, model.tokenizer, kept)
    assert len(prompt.ids) <= room
    more = [SYSTEM, *talk[1 + left_out - 2 :]]
    assert len(chat_prompt(conversation.template, model.tokenizer, more).ids) > room
    fewer = [conversation.fitted(talk, new_tokens=number).left_out for number in range(1, 33)]
    assert fewer[0] < fewer[-1] == left_out  # a short answer needs less room
    assert all(number % 2 == 0 for number in fewer)  # whole exchanges, so that the user's turn comes first
    model.chat(talk, seed=1, max_new_tokens=40)
    assert f"window of 128 tokens: its oldest {left_out} messages were left out" in capsys.readouterr().err
    model.chat(talk[:4], seed=1, max_new_tokens=3)
    assert "left out" not in capsys.readouterr().err


def test_system_texts_in_the_middle_stay_too(model):
    late = {"role": "system", "content": "Now be long."}
    talk = [
        SYSTEM,
        *turns("The fox runs and rests.", "It rests, 春眠不觉晓。"),
        late,
        *turns(*["Who waits?"] * 7),
    ]
    prompt, left_out = Conversation(model).fitted(talk)
    assert left_out >= 2
    assert prompt.text.count("system") == 2 and "Now be long." in prompt.text
    assert "The fox runs and rests." not in prompt.text


def test_a_message_that_fills_the_window_is_refused_with_both_numbers(model):
    talk = [*turns("Who?", "The fox."), {"role": "user", "content": "fox " * 200}]
    alone = len(chat_prompt(Conversation(model).template, model.tokenizer, talk[2:]).ids)
    with pytest.raises(Refused, match=f"has {alone:,} tokens .* window holds 128") as refusal:
        model.chat(talk)
    most = int(refusal.value.do.split()[5])
    fits = model.tokenizer.decode(model.tokenizer.encode("fox " * 200)[:most])
    assert model.chat([*talk[:2], {"role": "user", "content": fits}], seed=1).new_tokens == 1
    with pytest.raises(Refused, match="Without a word of it there are .*\n.*shorter system text"):
        model.chat("Who?", system="fox " * 200)
    with pytest.raises(Refused, match="window holds 128"):
        model.chat("狐" * 100_000)


def test_an_answer_is_never_without_an_end(model):
    """A model that does not stop is stopped: by the default, or by the window."""
    found = [model.chat("Who?", seed=seed, temperature=0.0) for seed in (1, 2)]
    assert found[0].text == found[1].text
    answer = found[0]
    assert answer.finish_reason == "stop" or answer.prompt_tokens + answer.new_tokens == model.context
    assert model.context < ANSWER_TOKENS
    assert model.chat("Who?", max_new_tokens=None, seed=1) == model.chat("Who?", seed=1)


def test_a_model_without_a_template_is_refused_and_takes_a_given_one(run):
    model = ownlm.load(run)
    with pytest.raises(Refused, match="was not taught to chat. What it does: continues text") as refusal:
        model.chat("Who?")
    assert refusal.value.do == f'ownlm generate {run} "The beginning of a text"'
    answer = model.chat("a", chat_template="alpaca", max_new_tokens=1, seed=1)
    assert answer.prompt == "### Instruction:\na\n\n### Response:\n"


def test_a_model_that_was_taught_a_task_is_told_its_verb(run, tmp_path):
    import shutil

    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
    content = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    for taught, command in (("sentiment", "classify"), ("translation", "translate"), ("chess", "generate")):
        (copy / "run.json").write_text(json.dumps(content | {"taught": [taught]}), encoding="utf-8")
        with pytest.raises(Refused, match=f"What it does: {taught}") as refusal:
            ownlm.load(copy).chat("Who?")
        assert refusal.value.do.startswith(f"ownlm {command} {copy}")
    (copy / "run.json").write_text(json.dumps(content | {"taught": ["chat"]}), encoding="utf-8")
    with pytest.raises(Refused, match="has no chat template"):
        ownlm.load(copy).chat("Who?")
