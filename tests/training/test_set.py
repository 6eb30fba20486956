"""`--set` and `--architecture`: every field of the model is reached, or refused before anything is written."""

from __future__ import annotations

import dataclasses

import pytest

import ownlm
from ownlm.console.errors import OwnlmError
from ownlm.console.settings import parse_assignments
from ownlm.model.checkpoint import load_config
from ownlm.model.config import ModelConfig, RopeScaling
from ownlm.model.transformer import Transformer
from ownlm.training import setup

# Every field of the model: an architecture that lets it vary, and assignments whose last one is the field's.
FIELDS = {
    "hidden_size": ("qwen3", ["hidden_size=192"]),
    "num_hidden_layers": ("qwen3", ["num_hidden_layers=3"]),
    "num_attention_heads": ("qwen3", ["num_attention_heads=4"]),
    "num_key_value_heads": ("qwen3", ["num_key_value_heads=1"]),
    "head_dim": ("qwen3", ["head_dim=32"]),
    "intermediate_size": ("qwen3", ["intermediate_size=192"]),
    "max_position_embeddings": ("qwen3", ["max_position_embeddings=64"]),
    "norm_eps": ("qwen3", ["norm_eps=1e-3"]),
    "rope_theta": ("qwen3", ["rope_theta=5e3"]),
    "rope_scaling": ("llama", ["rope_scaling={rope_type: linear, factor: 2.0}"]),
    "no_rope_layers": ("smollm3", ["no_rope_layers=[1]"]),
    "attention_bias": ("qwen3", ["attention_output_bias=true", "attention_bias=true"]),
    "attention_output_bias": ("qwen3", ["attention_bias=true", "attention_output_bias=true"]),
    "mlp_bias": ("llama", ["mlp_bias=true"]),
    "activation": ("llama", ["activation=gelu"]),
    "tie_word_embeddings": ("qwen3", ["tie_word_embeddings={other}"]),
    "sliding_window": ("qwen3", ["sliding_window=8"]),
    "window_layers": ("qwen3", ["sliding_window=8", "window_layers=[1]"]),
    "initializer_range": ("qwen3", ["initializer_range=0.05"]),
}
# What an architecture is: another value is refused before anything is written.
FIXED = {
    "norm": "layer", "norm_placement": "after", "positions": "none", "qk_norm": "full", "fused_qkv": "true", "mlp": "plain",
    "fused_gate_up": "true", "attention_scale": "0.3", "causal": "false", "architecture": "llama", "vocab_size": "500",
}  # fmt: skip


def test_every_field_of_the_model_is_here():
    assert {*FIELDS, *FIXED} == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("name", FIELDS)
def test_set_reaches_the_field_of_the_model(name):
    architecture, assignments = FIELDS[name]
    settings = {"set": [], "architecture": architecture}
    plain = setup.model_config(settings, 400, "1M", 32)
    other = str(not plain.tie_word_embeddings).lower()
    assignments = [assignment.replace("{other}", other) for assignment in assignments]
    config = setup.model_config(settings | {"set": assignments}, 400, "1M", 32)
    value = parse_assignments(assignments[-1:])[name]
    found = getattr(config, name)
    assert found != getattr(plain, name)
    assert found == (
        tuple(value)
        if isinstance(value, list)
        else RopeScaling(**value)
        if isinstance(value, dict)
        else value
    )
    model = Transformer(config)
    assert model.config == config
    assert sum(weight.numel() for weight in model.parameters()) == config.num_parameters()


@pytest.mark.parametrize("name", FIXED)
def test_what_an_architecture_is_cannot_be_set(corpus, tmp_path, tiny, name):
    with pytest.raises(OwnlmError, match=name):
        ownlm.pretrain(
            corpus, output=tmp_path / "run", max_steps=1, **(tiny | {"set": [f"{name}={FIXED[name]}"]})
        )
    assert not (tmp_path / "run").exists()


def test_set_is_in_the_model_that_is_written(corpus, tmp_path, tiny):
    settings = tiny | {"set": [*tiny["set"], "sliding_window=8", "rope_theta=5e3"], "max_steps": 0}
    ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    config = load_config(tmp_path / "run")
    assert (config.num_hidden_layers, config.sliding_window, config.rope_theta) == (2, 8, 5000.0)
