"""A saved folder opens again here and in transformers, with equal logits; damaged ones are refused."""

import json

import pytest
import torch
from tests.model.test_attention import config, filled

from ownlm.console.errors import Refused, UsageError
from ownlm.model.checkpoint import load_model, save_model
from ownlm.model.transformer import Transformer

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 3}
FORMS = [
    {},
    {"tie_word_embeddings": False},
    {"architecture": "llama", "qk_norm": "none"},
    {"sliding_window": 4, "window_layers": (1,)},
    {"rope_theta": 500_000.0, "norm_eps": 1e-5},
]


@pytest.mark.parametrize("changes", FORMS)
def test_logits_equal_transformers_after_saving(tmp_path, changes):
    from transformers import AutoModelForCausalLM

    model = filled(Transformer(config(**changes)))
    save_model(model, tmp_path, IDS)
    ids = torch.randint(0, 97, (2, 12), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours = load_model(tmp_path)(ids)
        assert torch.equal(ours, model(ids))
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")(ids).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_form_that_other_tools_cannot_open_is_refused(tmp_path):
    with pytest.raises(Refused, match="positions"):
        save_model(Transformer(config(positions="none")), tmp_path, IDS)
    assert not (tmp_path / "config.json").exists()


def test_missing_and_damaged_folders(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json"):
        load_model(tmp_path)
    model = filled(Transformer(config()))
    save_model(model, tmp_path, IDS)
    weights = tmp_path / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(Refused, match="safetensors"):
        load_model(tmp_path)
    weights.write_bytes(b"\xff" * 8 + data[8:])
    with pytest.raises(Refused, match="safetensors"):
        load_model(tmp_path)
    weights.write_bytes(data)
    for field, value, word in (
        ("hidden_size", 64, "shape|is \\["),
        ("model_type", "unheard-of", "unheard-of"),
        ("hidden_act", "mish", "hidden_act"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "yarn"),
        ("num_hidden_layers", 10**9, "num_hidden_layers"),
        ("num_hidden_layers", 3, "missing"),
        ("num_hidden_layers", 1, "unknown"),
    ):
        save_model(model, tmp_path, IDS)
        content = json.loads((tmp_path / "config.json").read_text())
        content[field] = value
        if field == "num_hidden_layers":
            content.pop("layer_types")
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises((Refused, UsageError), match=word):
            load_model(tmp_path)
