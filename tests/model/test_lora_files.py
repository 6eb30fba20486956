"""Adapter folders: names as in the Hugging Face family, round trips, and every kind of damage refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.engine.conftest import random_model
from torch import Tensor

from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.model.config import ModelConfig
from ownlm.model.lora import LoraSettings, add_lora, lora_layers
from ownlm.model.lora_apply import attach, fill, merge_into
from ownlm.model.lora_config import endings
from ownlm.model.lora_files import read_adapter, save_adapter
from ownlm.model.transformer import Transformer

IDS = torch.randint(0, 60, (2, 24), generator=torch.Generator().manual_seed(1))
SETTINGS = LoraSettings(r=4, alpha=8, dropout=0.1)
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def made(settings: LoraSettings = SETTINGS, base: Transformer | None = None) -> Transformer:
    model = base or random_model()
    add_lora(model, settings, seed=1)
    generator = torch.Generator().manual_seed(5)
    for layer in lora_layers(model).values():
        layer.lora_B.data.copy_(torch.randn(layer.lora_B.shape, generator=generator) * 0.1)
    return model.eval()


@torch.no_grad()
def test_a_round_trip_gives_the_same_bits(tmp_path: Path) -> None:
    settings = LoraSettings(
        r=3,
        alpha=5,
        rslora=True,
        target_modules=("q_proj", "0.mlp.down_proj"),
        ranks={"model.layers.1.self_attn.q_proj": 6},
        alphas={"model.layers.0.mlp.down_proj": 2.5},
    )
    model = made(settings)
    save_adapter(model, tmp_path, settings, base="base")
    adapter = read_adapter(tmp_path)
    again = random_model()
    trained = attach(again, adapter, dropout=0.0)
    assert len(trained) == 6
    assert torch.equal(again.eval()(IDS), model(IDS))
    assert again.get_submodule("blocks.1.attention.q_proj").lora_A.shape[0] == 6
    other = random_model()
    merge_into(other, adapter)
    torch.testing.assert_close(other(IDS), model(IDS))
    # An interrupted run makes its layers anew and fills them.
    resumed = random_model()
    add_lora(resumed, settings, seed=2)
    fill(resumed, adapter)
    assert torch.equal(resumed.eval()(IDS), model(IDS))
    add_lora(third := random_model(), LoraSettings(r=3, target_modules=("q_proj",)), seed=2)
    with pytest.raises(Refused, match="do not change the same layers"):
        fill(third, adapter)


GPT2 = ModelConfig(
    vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
    intermediate_size=64, max_position_embeddings=64, architecture="gpt2", norm="layer", positions="learned",
    qk_norm="none", mlp="plain", activation="gelu_tanh", fused_qkv=True, attention_bias=True,
    attention_output_bias=True, mlp_bias=True,
)  # fmt: skip


def test_names_are_those_of_the_family(tmp_path: Path) -> None:
    base = Transformer(GPT2)
    base.init_weights(1)
    save_adapter(made(base=base), tmp_path, SETTINGS, base="/models/gpt2")
    shapes = {name: list(t.shape) for name, t in load_file(tmp_path / "adapter_model.safetensors").items()}
    start = "base_model.model.transformer.h.0"
    assert shapes == {
        f"{start}.{layer}.lora_{side}.weight": [4, inputs] if side == "A" else [outputs, 4]
        for layer, inputs, outputs in (
            ("attn.c_attn", 32, 96), ("attn.c_proj", 32, 32), ("mlp.c_fc", 32, 64), ("mlp.c_proj", 64, 32),
        )
        for side in "AB"
    }  # fmt: skip
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    assert content["target_modules"] == ["c_attn", "c_fc", "c_proj"] and content["fan_in_fan_out"] is True
    assert content["base_model_name_or_path"] == "/models/gpt2" and content["lora_dropout"] == 0.1
    assert not list(tmp_path.glob("*.tmp"))


@torch.no_grad()
def test_names_of_the_bare_model_are_read_too(tmp_path: Path) -> None:
    model = made()
    save_adapter(model, tmp_path, SETTINGS, base="base")
    change_tensors(
        tmp_path, lambda held: {name.replace("model.layers", "layers"): t for name, t in held.items()}
    )
    again = random_model()
    attach(again, read_adapter(tmp_path))
    assert torch.equal(again.eval()(IDS), model(IDS))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["a.0.q", "a.0.o.dense", "a.1.q", "a.1.o.dense"], ["o.dense", "q"]),
        (["a.0.q", "a.1.q"], ["q"]),
        (["a.1.q"], ["1.q"]),
        (["a.1.o.dense"], ["1.o.dense"]),
        (["a.0.i.dense", "a.0.o.dense", "a.1.i.dense", "a.1.o.dense"], ["i.dense", "o.dense"]),
    ],
)
def test_the_shortest_endings(chosen: list[str], expected: list[str]) -> None:
    names = ["a.0.q", "a.0.i.dense", "a.0.o.dense", "a.1.q", "a.1.i.dense", "a.1.o.dense", "a.11.q"]
    if len(chosen) > 1:
        names.remove("a.11.q")
    assert endings(chosen, names) == expected


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def change_config(**fields: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return apply


def tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    return lambda folder: change_tensors(folder, change)


def without(held: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {one: tensor for one, tensor in held.items() if one != name}


SECOND = FIRST.replace("lora_A", "lora_B")
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "weights are missing"),
    "a pickle": (
        lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
        "pickle can run any program",
    ),
    "half a file": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(
            (folder / "adapter_model.safetensors").read_bytes()[:-9]
        ),
        "not a whole safetensors file",
    ),
    "a side missing": (tensors(lambda held: without(held, SECOND)), "lora_B is missing"),
    "NaN": (tensors(lambda held: held | {FIRST: held[FIRST] * float("nan")}), "no numbers"),
    "another rank": (tensors(lambda held: held | {FIRST: held[FIRST][:3].clone()}), "says rank 4"),
    "another width": (
        tensors(lambda held: held | {FIRST: torch.ones(4, 95)}),
        r"as a matrix \[96, 95\]; in the base it is \[96, 96\]",
    ),
    "whole numbers": (tensors(lambda held: held | {FIRST: held[FIRST].to(torch.int8)}), "lora_A"),
    "a layer too many": (
        tensors(lambda held: {name.replace("layers.1.", "layers.7."): t for name, t in held.items()}),
        "model.layers.7.* which the blocks of the base do not have",
    ),
    "another tensor": (tensors(lambda held: held | {"base_model.model.x": torch.ones(1)}), "model.x"),
    "a module for another model": (
        lambda folder: (
            change_tensors(folder, lambda held: held | {"base_model.model.score.weight": torch.ones(2, 96)}),
            change_config(modules_to_save=["score"])(folder),
        )[0],
        "it replaces score.weight",
    ),
    "nothing": (tensors(lambda held: {}), "changes nothing"),
    "another method": (change_config(peft_type="IA3"), "IA3"),
    "DoRA": (change_config(use_dora=True), "use_dora=True"),
    "biases": (change_config(bias="all"), "bias='all'"),
    "a field of the future": (change_config(use_something_new=3), "use_something_new=3"),
    "a changed base": (change_config(init_lora_weights="pissa_niter_4"), "pissa"),
    "a rank that is none": (change_config(r=-1), "-1 is no rank"),
    "a rank in words": (change_config(r="four"), "r is 'four'"),
    "alpha": (change_config(lora_alpha=float("inf")), "lora_alpha"),
    "an endless pattern": (change_config(rank_pattern={"(a+)+b": 4}), r"\(a\+\)\+b"),
    "names that are none": (change_config(modules_to_save=[3]), "modules_to_save"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_by_name(name: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[name]
    save_adapter(made(), tmp_path, SETTINGS, base="base")
    damage(tmp_path)
    model = random_model()
    before = dict(model.named_parameters())
    with pytest.raises(OwnlmError, match=message) as said:
        attach(model, read_adapter(tmp_path))
    assert isinstance(said.value, (Refused, UsageError))
    assert dict(model.named_parameters()).keys() == before.keys()


def test_a_model_without_an_adapter_is_not_saved_as_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no low-rank adapter"):
        save_adapter(random_model(), tmp_path, SETTINGS, base="base")
