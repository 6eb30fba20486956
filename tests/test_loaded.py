"""`ownlm.load`: one object for text in and text out, whose every way of asking gives the same answer."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

import ownlm
from ownlm.console.errors import Refused, UsageError
from ownlm.loaded import DEFAULT_NEW_TOKENS, read_run, stop_ids


@pytest.fixture(scope="module")
def model(run):
    return ownlm.load(run)


def test_it_knows_what_it_is(model, run):
    assert os.fspath(model) == str(run)
    assert model.taught == ["continues text"]
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert model.run == content
    assert model.context == content["plan"]["context"]
    assert sum(weight.numel() for weight in model.model.parameters()) == content["model"]["parameters"]
    assert f"{content['model']['parameters']:,} parameters" in repr(model)
    assert ownlm.load(model) is model


def test_generate_gives_text_or_texts_as_it_was_asked(model):
    options = {"max_new_tokens": 6, "seed": 2}
    text = model.generate("The fox", **options)
    assert isinstance(text, str) and text.startswith("The fox") and len(text) > len("The fox")
    assert model.generate("The fox", completion_only=True, **options) == text.removeprefix("The fox")
    assert model.generate(["The fox"], **options) == [text]
    both = model.generate(["The fox", "Rain"], **options)
    assert both[0] == text and both[1].startswith("Rain")
    three = model.generate("The fox", num_return_sequences=3, **options)
    assert len(three) == 3 and three[0] == text and len(set(three)) > 1
    assert ownlm.generate(model, "The fox", **options) == text


def test_pieces_completions_and_texts_are_the_same(model):
    options = {"max_new_tokens": 8, "seed": 5, "num_return_sequences": 2, "stop": ["."]}
    prompts = ["The fox", "春眠"]
    texts: dict[tuple[int, int], str] = {}
    for piece in model.stream(prompts, **options):
        key = (piece.prompt, piece.index)
        texts[key] = texts.get(key, "") + piece.text
    completions = model.complete(prompts, **options)
    assert [texts[key] for key in sorted(texts)] == [c.text for c in completions]
    assert model.generate(prompts, **options) == [c.prompt + c.text for c in completions]


def test_the_tokens_of_a_completion_are_its_text(model):
    found = model.complete("3: The quick", max_new_tokens=7, temperature=0.0)[0]
    assert found.prompt_tokens == len(model.tokenizer.encode("3: The quick"))
    assert found.new_tokens == 7
    assert found.finish_reason == "length"


def test_without_a_length_the_window_or_200_tokens_end_a_text(model, corpus, tmp_path, tiny):
    found = model.complete("The fox", seed=1, stop="~~~")[0]
    assert 1 + found.prompt_tokens + found.new_tokens == model.context or found.finish_reason == "stop"
    settings = tiny | {"context": 256, "per_device_train_batch_size": 1}
    ownlm.pretrain(corpus, output=tmp_path / "wide", max_steps=0, **settings)
    wide = [
        c.new_tokens
        for c in ownlm.load(tmp_path / "wide").complete("The fox", seed=1, num_return_sequences=4)
    ]
    assert max(wide) == DEFAULT_NEW_TOKENS


def test_each_sampling_setting_changes_the_text(model):
    plain = {"max_new_tokens": 14, "seed": 3, "temperature": 1.5}

    def text(**changed):
        return model.generate("The", **(plain | changed))

    assert text() == text()
    for name, value in {
        "seed": 4, "temperature": 0.3, "top_k": 2, "top_p": 0.3, "min_p": 0.5, "repetition_penalty": 5.0, "max_new_tokens": 5,
    }.items():  # fmt: skip
        assert text(**{name: value}) != text(), name


def test_a_seed_is_drawn_each_time(model):
    seeds = {model.complete("The", max_new_tokens=1)[0].seed for _ in range(5)}
    assert len(seeds) == 5


def test_a_prompt_without_room_is_refused_with_the_numbers(model):
    long = "fox " * 60
    tokens = len(model.tokenizer.encode(long))
    with pytest.raises(Refused, match=f"{tokens} tokens(.|\n)*{model.context}"):
        model.generate(long)
    with pytest.raises(UsageError, match="max-length"):
        model.generate("The fox runs home", max_length=1)
    with pytest.raises(UsageError, match="stop"):
        model.generate("The", stop=["a", ""])
    assert not model.engine.busy


def test_a_smaller_window_and_another_dtype(run, model):
    small = ownlm.load(run, max_context=16)
    assert small.context == 16
    found = small.complete("The fox", seed=1, stop="~~~")[0]
    assert 1 + found.prompt_tokens + found.new_tokens <= 16
    exact = ownlm.load(run, dtype="float32")
    assert exact.engine.backend.dtype == "float32"
    assert {weight.dtype for weight in exact.model.parameters()} == {torch.float32}
    with pytest.raises(UsageError, match="device"):
        ownlm.load(run, device="abacus")


def test_a_checkpoint_is_a_model_of_its_run(run, model):
    last = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    checkpoint = ownlm.load(last)
    assert checkpoint.run == model.run
    assert checkpoint.generate("The", seed=1, max_new_tokens=6) == model.generate(
        "The", seed=1, max_new_tokens=6
    )


def test_last_is_the_newest_run_below_this_folder(corpus, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ownlm.pretrain(corpus, output="one", max_steps=0, **tiny)
    ownlm.pretrain(corpus, output="two", max_steps=0, **(tiny | {"seed": 1}))
    content = json.loads((tmp_path / "one/run.json").read_text(encoding="utf-8"))
    (tmp_path / "one/run.json").write_text(json.dumps(content | {"created": "2020-01-01T00:00:00+00:00"}))
    assert ownlm.load("last").path.name == "two"


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
    return tmp_path / "copy"


def test_without_run_json_it_still_continues_text(copy, model):
    (copy / "run.json").unlink()
    bare = ownlm.load(copy)
    assert (bare.run, bare.taught) == ({}, ["continues text"])
    assert bare.generate("The", seed=1, max_new_tokens=6) == model.generate("The", seed=1, max_new_tokens=6)


def test_damaged_folders_are_refused_by_name(copy, text_folder, tmp_path):
    (copy / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(Refused, match=r"run\.json: not valid JSON"):
        read_run(copy)
    (copy / "run.json").unlink()
    other = ownlm.prepare([str(text_folder)], output=tmp_path / "other", vocab_size=450)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(other.path / name, copy / name)
    with pytest.raises(Refused, match=f"tokenizer has {other.tokenizer.vocab_size} tokens, the model 400"):
        ownlm.load(copy)
    (copy / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(Refused, match=r"model\.safetensors"):
        ownlm.load(copy)
    with pytest.raises(UsageError, match="no such run folder"):
        ownlm.load(tmp_path / "nowhere")


def test_the_token_that_ends_a_text_may_be_named_elsewhere(copy):
    """By special_tokens_map.json, or by its id alone in generation_config.json."""
    spec = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    for token in spec["added_tokens"]:
        token["content"] = token["content"].replace("<|endoftext|>", "<end>")
    spec["model"]["vocab"] = {
        k.replace("<|endoftext|>", "<end>"): i for k, i in spec["model"]["vocab"].items()
    }
    end = next(token["id"] for token in spec["added_tokens"] if token["content"] == "<end>")
    (copy / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (copy / "tokenizer_config.json").write_text("{}")
    (copy / "special_tokens_map.json").write_text('{"eos_token": "<end>"}')
    assert ownlm.load(copy).tokenizer.eos_id == end
    (copy / "special_tokens_map.json").unlink()
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, 5]}))
    loaded = ownlm.load(copy)
    assert stop_ids(copy, loaded.tokenizer, loaded.model.config.vocab_size) == (end, 5)
    assert loaded.generate("The fox", max_new_tokens=3, seed=1).startswith("The fox")
