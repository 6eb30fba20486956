"""Conversations as ids and what of them is trained; the ids are those of transformers."""

from __future__ import annotations

import json
import random

import pytest

from ownlm.corpus.tokenizer import Tokenizer
from ownlm.tasks.items import Chat, Pair
from ownlm.tasks.problems import BadRow
from ownlm.tasks.render import _masked, render_chat, render_pair
from ownlm.tasks.templates import BUILT_IN, ChatTemplate, find_template
from tests.tasks.files import turns
from tests.tasks.models import TEMPLATES, model_folder

END = "<|im_end|>"
TALKS = [
    turns("Who runs?", "The fox runs home."),
    turns("Who?", "The fox.", "Who?", "The fox.", "春眠不觉晓？", "处处闻啼鸟。"),
    turns(" the fox ", "the fox", "assistant", "assistant", "user", "i"),
    turns("say <think>", "think", "\n\nthe\n\n", "the\n\n```\n  code\n```\n"),
    turns("The fox sees The fox", "The fox sees The fox", "x"),
    turns("🦊 é", "🦊🦊 é̂ 鸟", "a" * 300, "b" * 300),
]


def folder_of(template, tmp_path, corpus):
    folder = model_folder(tmp_path / "model", corpus, template)
    tokenizer = Tokenizer.load(folder)
    return folder, tokenizer, find_template(tokenizer, folder, None)


def trained_texts(row):
    """The runs of trained tokens as text."""
    texts, before = [], False
    for piece, on in zip(row.pieces, row.trained):
        if on and not before:
            texts.append("")
        if on:
            texts[-1] += piece
        before = on
    return texts


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("talk", TALKS, ids=range(len(TALKS)))
def test_ids_are_those_of_transformers_and_the_answers_are_trained(name, talk, tmp_path, corpus):
    transformers = pytest.importorskip("transformers")
    folder, tokenizer, template = folder_of(TEMPLATES[name], tmp_path, corpus)
    row = render_chat(Chat("x:1", tuple(talk)), template, tokenizer)
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    assert row.ids == peer.apply_chat_template(talk, tokenize=True, return_dict=False)
    assert row.text == "".join(row.pieces) == peer.apply_chat_template(talk, tokenize=False)
    asked = peer.apply_chat_template(talk[:1], tokenize=True, return_dict=False, add_generation_prompt=True)
    assert (
        tokenizer.encode(template.text(talk[:1], add_generation_prompt=True), specials=True).tolist() == asked
    )
    answers = [turn["content"] for turn in talk if turn["role"] == "assistant"]
    texts = trained_texts(row)
    assert len(texts) == len(answers)
    for text, answer in zip(texts, answers):
        end = {"llama-2": " <|endoftext|>", "no header": ""}.get(name, END)
        stripped = name in ("llama-2", "no header")
        shown = text.removeprefix("<think>\n\n</think>\n\n") if name == "thinking" else text
        assert shown.strip() == f"{answer.strip() if stripped else answer}{end}".strip()
    assert row.endless == (len(answers) if name == "no header" else 0)


def test_the_mark_of_a_template_agrees_with_transformers(tmp_path, corpus):
    transformers = pytest.importorskip("transformers")
    folder, tokenizer, template = folder_of(TEMPLATES["marked"], tmp_path, corpus)
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    for talk in TALKS:
        row = render_chat(Chat("x:1", tuple(talk)), template, tokenizer)
        theirs = peer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
        assert list(map(int, row.trained)) == list(theirs["assistant_masks"])


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_templates_train_answers_and_their_end(name, tmp_path, corpus):
    folder = model_folder(tmp_path / "model", corpus, None)
    tokenizer = Tokenizer.load(folder)
    template = find_template(tokenizer, folder, name)
    end = END if name == "chatml" else "<|endoftext|>"
    for talk in TALKS:
        row = render_chat(Chat("x:1", tuple(talk)), template, tokenizer)
        assert trained_texts(row) == [t["content"] + end for t in talk if t["role"] == "assistant"]
        assert row.endless == 0


def test_any_answer_is_found_whatever_stands_in_it(tmp_path, corpus):
    """Random turns of few letters, so that answers occur in questions, in other answers and in the template."""
    _, tokenizer, template = folder_of(TEMPLATES["thinking"], tmp_path, corpus)
    draw = random.Random(7)
    for _ in range(200):
        words = ["".join(draw.choices("aist\n thn", k=draw.randint(1, 6))).strip() or "i" for _ in range(4)]
        row = render_chat(Chat("x:1", tuple(turns(*words))), template, tokenizer)
        assert trained_texts(row) == [words[1] + END, f"<think>\n\n</think>\n\n{words[3]}{END}"]


def test_an_answer_is_not_taken_for_what_the_template_writes_before_it(tmp_path, corpus):
    """A template that writes something before all answers but the last: no beginning of it ends where a turn ends."""
    noted = TEMPLATES["chatml"].replace(
        "+ m['content']", "+ ('' if loop.last or loop.first else 'it is: ') + m['content']"
    )
    _, tokenizer, template = folder_of(noted, tmp_path, corpus)
    for word in ("i", "s", "it", "is", "it is"):
        row = render_chat(Chat("x:1", tuple(turns("Who?", word, "Who?"))), template, tokenizer)
        assert trained_texts(row) == [f"it is: {word}{END}"]


def test_tokens_that_a_tokenizer_puts_around_texts_are_not_put_around_a_conversation(tmp_path, corpus):
    transformers = pytest.importorskip("transformers")
    folder = model_folder(tmp_path / "model", corpus, TEMPLATES["chatml"])
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    bos = {"SpecialToken": {"id": "<|spare_0|>", "type_id": 0}}
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|spare_0|>": {"id": "<|spare_0|>", "ids": [4], "tokens": ["<|spare_0|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode_whole("a", specials=True).ids[0] == 4
    row = render_chat(Chat("x:1", tuple(TALKS[0])), find_template(tokenizer, folder, None), tokenizer)
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    assert row.ids == peer.apply_chat_template(TALKS[0], return_dict=False)
    assert trained_texts(row) == [f"The fox runs home.{END}"]


def test_tool_calls_are_trained_and_what_tools_answer_is_not(tmp_path, corpus):
    _, tokenizer, template = folder_of(TEMPLATES["tools"], tmp_path, corpus)
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "find"}}],
    }
    messages = (
        *turns("Find it"),
        call,
        {"role": "tool", "content": "here"},
        *turns("Found.", first="assistant"),
    )
    row = render_chat(Chat("x:1", messages, ({"name": "find"},)), template, tokenizer)
    assert trained_texts(row) == [f'<call>{{"name": "find"}}</call>{END}', f"Found.{END}"]
    assert '[{"name": "find"}]' in row.text


def test_an_answer_that_the_template_changes_is_refused_not_guessed(tmp_path, corpus):
    changed = TEMPLATES["chatml"].replace("m['content']", "(m['content'] | upper)")
    _, tokenizer, template = folder_of(changed, tmp_path, corpus)
    with pytest.raises(BadRow, match="does not tell where an answer stands"):
        render_chat(Chat("x:1", tuple(turns("Who?", "fox"))), template, tokenizer)


def test_a_pair_is_one_text_between_the_tokens_of_a_document(corpus):
    tokenizer = Tokenizer.load(corpus)
    row = render_pair(Pair("x:1", "The qui", "ck fox"), tokenizer)
    assert row.ids == [tokenizer.eos_id, *tokenizer.encode("The quick fox").tolist(), tokenizer.eos_id]
    assert row.text == "The quick fox"
    assert row.trained[0] is False
    assert row.trained[-1] is True
    assert trained_texts(row)[0].endswith("ck fox<|endoftext|>")
    whole = render_pair(Pair("x:1", "The quick", " fox"), tokenizer)
    assert trained_texts(whole) == [" fox<|endoftext|>"]
    assert (row.straddling > 0, whole.straddling) == (trained_texts(row)[0] != "ck fox<|endoftext|>", 0)


def test_text_that_spells_a_special_token_is_that_token_as_in_transformers(tmp_path, corpus):
    transformers = pytest.importorskip("transformers")
    folder, tokenizer, template = folder_of(TEMPLATES["chatml"], tmp_path, corpus)
    talk = turns(f"Who?{END}", "fox")
    row = render_chat(Chat("x:1", tuple(talk)), template, tokenizer)
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    assert row.ids == peer.apply_chat_template(talk, return_dict=False)
    assert trained_texts(row) == [f"fox{END}"]


def test_offsets_that_go_back_and_forth_give_every_character_to_one_token():
    row = _masked("abcd", [1, 2, 3, 4], [2, 1, 3, 4], [(1, 3)], set())
    assert row.pieces == ["ab", "", "c", "d"]
    assert row.trained == [True, True, True, False]
    assert row.straddling == 1


def test_a_template_object_alone_needs_no_folder(corpus):
    tokenizer = Tokenizer.load(corpus)
    template = ChatTemplate(BUILT_IN["chatml"], "chatml", {})
    assert render_chat(Chat("x:1", tuple(turns("a", "b"))), template, tokenizer).endless == 0
