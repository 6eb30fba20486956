"""What is refused before or after transformers opens a folder, and in which words."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ownlm.cli import main
from ownlm.console.errors import EXIT_REFUSED, Refused, UsageError
from ownlm.loaded import load
from ownlm.model.fields import NotNative
from tests.peers import foreign_models as peers

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def neox(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("neox")
    peers.build_form("gpt_neox", folder)
    return folder


@pytest.fixture
def folder(neox, tmp_path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(neox, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def bart(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bart")
    peers.build_form("bart", folder)
    return folder


def change(folder: Path, **fields: Any) -> None:
    """Other fields in config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture
def unopened(monkeypatch) -> None:
    """transformers must not be asked to open anything."""

    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("transformers was asked to open the folder")

    for name in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForMaskedLM"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", opened)


def test_without_transformers(folder, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "transformers" else found(name, *rest),
    )
    with pytest.raises(NotNative):
        load(folder)
    assert main(["generate", str(folder), "A"]) == EXIT_REFUSED
    said = capsys.readouterr().err
    assert '"gpt_neox" is not built in' in said and 'pip install "ownlm[transformers]"' in said


@pytest.mark.usefixtures("unopened")
class TestBefore:
    """Refused from the files alone."""

    def test_code_of_the_folder(self, folder):
        (folder / "modeling.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
        change(folder, model_type="mine", auto_map={"AutoModelForCausalLM": "modeling.Model"})
        with pytest.raises(Refused, match="Python code of its own") as refusal:
            load(folder)
        assert "modeling.Model" in str(refusal.value) and not (folder / "ran").exists()

    def test_code_named_in_an_inner_config(self, folder):
        change(folder, text_config={"auto_map": {"AutoConfig": "configuration.Config"}})
        with pytest.raises(Refused, match="Python code of its own"):
            load(folder)

    def test_attention_code_of_a_hub(self, folder):
        change(folder, _attn_implementation="someone/attention")
        with pytest.raises(Refused, match="someone/attention"):
            load(folder)

    def test_pickled_weights(self, folder):
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(Refused, match="pickled weights"):
            load(folder)

    def test_a_damaged_file(self, folder):
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
        with pytest.raises(Refused, match="not a whole safetensors file"):
            load(folder)

    def test_an_adapter(self, folder):
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
        with pytest.raises(Refused, match="an adapter"):
            load(folder)

    def test_an_architecture_that_nobody_knows(self, folder):
        change(folder, model_type="made_up", architectures=["MadeUpForCausalLM"])
        with pytest.raises(Refused, match=f'{transformers.__version__} does not know .* "made_up" either'):
            load(folder)

    @pytest.mark.parametrize("name", ["GPTNeoXForMultipleChoice", "WhisperForConditionalGeneration"])
    def test_a_model_that_writes_no_text(self, folder, name):
        change(folder, architectures=[name])
        with pytest.raises(Refused, match=f'"{name}" is not a language model'):
            load(folder)


def test_an_error_of_the_library_is_one_line(folder, capsys):
    change(folder, hidden_size=30)  # four heads do not divide it
    assert main(["generate", str(folder), "A"]) == EXIT_REFUSED
    said = capsys.readouterr().err.strip().splitlines()
    assert f"transformers {transformers.__version__} cannot open it: " in said[0]
    assert len(said) == 2 and said[1].startswith("Try: ") and "Traceback" not in "".join(said)
    assert main(["generate", str(folder), "A", "--debug"]) == EXIT_REFUSED
    assert "Traceback" in capsys.readouterr().err


def test_missing_weights(folder):
    """The library would go on with random ones."""
    weights = load_file(folder / "model.safetensors")
    name = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Refused, match=f"1 missing weights, first: {name}"):
        load(folder)


def test_weights_that_have_no_place_are_said(folder, capsys):
    weights = load_file(folder / "model.safetensors") | {"another.head.weight": torch.ones(2)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load(folder)
    assert "1 stored weights are not used, first: another.head.weight" in capsys.readouterr().err


def test_weights_that_are_no_numbers(folder):
    weights = load_file(folder / "model.safetensors")
    weights["gpt_neox.final_layer_norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Refused, match="not a finite number"):
        load(folder)


def test_a_model_that_sees_what_comes_later(tmp_path):
    """Electra's causal class without `is_decoder` looks both ways; its scores would be of no text."""
    shape = {"vocab_size": 400, "hidden_size": 32, "embedding_size": 32, "num_hidden_layers": 2}
    config = transformers.ElectraConfig(
        **shape, num_attention_heads=4, intermediate_size=48, max_position_embeddings=64
    )
    peers.build(config, tmp_path, peers.byte_level(), "AutoModelForCausalLM")
    with pytest.raises(Refused, match="change with the tokens after it"):
        load(tmp_path)
    change(tmp_path, is_decoder=True)
    assert load(tmp_path).context == 64


def test_a_tokenizer_of_another_model(folder):
    small = transformers.GPTNeoXConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    peers.build(small, folder, peers.byte_level(), "AutoModelForCausalLM")
    with pytest.raises(Refused, match="the tokenizer has 320 tokens, the model 100"):
        load(folder)


def test_a_window_wider_than_the_model(folder):
    with pytest.raises(UsageError, match=f"made for {peers.WINDOW}"):
        load(folder, max_context=peers.WINDOW + 1)


@pytest.mark.parametrize("verb", ["evaluate", "score"])
def test_text_alone_has_no_probability_under_an_encoder_decoder_model(verb, bart, tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text(peers.TEXT[0])
    assert main([verb, str(bart), str(file)]) == EXIT_REFUSED
    assert "text alone has no probability" in (said := capsys.readouterr().err)
    assert f"ownlm score {bart} --rank CANDIDATES --prompt PROMPT" in said


def test_a_window_that_is_taken_is_said(tmp_path, capsys):
    peers.build_form("t5", tmp_path)
    assert load(tmp_path).context == 512
    assert "names no longest text: 512 tokens are taken (a usual length)" in capsys.readouterr().err
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 77}))
    assert load(tmp_path).context == 77
    assert "77 tokens are taken (tokenizer_config.json)" in capsys.readouterr().err


def test_stored_dtype(folder):
    """float32 for figures, whatever is stored; the asked one otherwise."""
    weights = load_file(folder / "model.safetensors")
    halves = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    change(folder, dtype="bfloat16")
    assert load(folder, dtype="float32").model.embedding.weight.dtype == torch.float32
    assert load(folder, dtype="bfloat16").model.embedding.weight.dtype == torch.bfloat16


def test_code_of_a_folder_that_transformers_can_open_without_it(folder, capsys):
    """Phi-3.5 names code, and its class has long been part of the library: opened, said, and nothing runs."""
    expected = load(folder).generate("A", max_new_tokens=5, temperature=0)
    for name in ("configuration", "modeling"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    change(folder, auto_map={"AutoConfig": "configuration.Config", "AutoModelForCausalLM": "modeling.Model"})
    assert load(folder).generate("A", max_new_tokens=5, temperature=0) == expected
    assert "auto_map names Python code; it is not run" in capsys.readouterr().err
    assert not (folder / "ran").exists()
