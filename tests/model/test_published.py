"""config.json of published models, whole, with small numbers in place of large ones: each is built in, none falls back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.test_attention import config, filled

from ownlm.console.errors import Refused
from ownlm.model.checkpoint import load_config, load_model, save_model
from ownlm.model.families import FAMILIES, from_hugging_face
from ownlm.model.fields import NotNative
from ownlm.model.transformer import Transformer

_SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3,
          "num_key_value_heads": 2, "vocab_size": 97, "hidden_act": "silu", "initializer_range": 0.02,
          "use_cache": True, "torch_dtype": "float32"}  # fmt: skip
_GPT2 = {"activation_function": "gelu_new", "attn_pdrop": 0.1, "embd_pdrop": 0.1, "initializer_range": 0.02,
         "layer_norm_epsilon": 1e-5, "n_ctx": 64, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64,
         "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "vocab_size": 97,
         "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True, "model_type": "gpt2",
         "architectures": ["GPT2LMHeadModel"], "bos_token_id": 1, "eos_token_id": 1,
         "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt2-medium": _GPT2 | {"n_special": 0, "predict_special_tokens": True},
    "gpt2-xl": _GPT2 | {"n_special": 0, "predict_special_tokens": True, "output_past": True},
    "distilgpt2": _GPT2 | {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
    "SmolLM2": _SMALL | {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0,
        "eos_token_id": 0, "is_llama_config": True, "max_position_embeddings": 64, "model_type": "llama",
        "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_interleaved": False, "rope_scaling": None,
        "rope_theta": 100000, "tie_word_embeddings": True,
        "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}}},
    "SmolLM3": _SMALL | {
        "architectures": ["SmolLM3ForCausalLM"], "attention_bias": False, "bos_token_id": None, "eos_token_id": 2,
        "layer_types": ["full_attention"] * 3, "max_position_embeddings": 64, "max_window_layers": 28,
        "mlp_bias": False, "pad_token_id": 2, "model_type": "smollm3", "no_rope_layer_interval": 2, "no_rope_layers": [1, 0, 1],
        "pretraining_tp": 2, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 5000000.0,
        "sliding_window": None, "use_sliding_window": False},
    "Phi-3-mini": _SMALL | {
        "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
        "auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}, "bos_token_id": 1, "eos_token_id": 2,
        "max_position_embeddings": 64, "model_type": "phi3", "original_max_position_embeddings": 64,
        "pad_token_id": 2, "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 7,
        "tie_word_embeddings": False},
}  # fmt: skip


def put(folder: Path, content: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_logits_are_those_of_transformers(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    put(tmp_path, PUBLISHED[name])
    torch.manual_seed(1)
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(tmp_path, trust_remote_code=False)
    ).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.06)
    theirs.save_pretrained(tmp_path)
    put(tmp_path, PUBLISHED[name])  # not as the library would write it today
    ids = torch.randint(3, 97, (2, 40), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path)(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("said", [{}, {"sliding_window": None}, {"sliding_window": 9}])
def test_the_window_of_a_mistral_config(said, tmp_path):
    transformers = pytest.importorskip("transformers")
    content = _SMALL | {"model_type": "mistral", "max_position_embeddings": 64} | said
    put(tmp_path, content)
    expected = transformers.AutoConfig.from_pretrained(tmp_path).sliding_window
    assert from_hugging_face(content, tmp_path).sliding_window == expected


@pytest.mark.parametrize(
    ("rope", "error", "word"),
    [
        ({"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, NotNative, "full_attention"),
        ({"rope_scaling": {"type": "default", "mrope_section": [1]}}, NotNative, "mrope_section"),
        ({"rope_theta": 0}, Refused, "rope_theta"),
        ({"rope_theta": -1.0}, Refused, "rope_theta"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0},
             "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
            Refused, "different things of factor",
        ),
    ],
)  # fmt: skip
def test_rotary_positions_that_would_be_ignored_are_refused(rope, error, word):
    content = _SMALL | {"model_type": "llama", "max_position_embeddings": 64}
    from_hugging_face(content, "config.json")  # right without them
    with pytest.raises(error, match=word):
        from_hugging_face(content | rope, "config.json")


def test_both_names_of_rope_scaling_are_read_when_they_agree():
    content = _SMALL | {"model_type": "llama", "max_position_embeddings": 64}
    old, new = {"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}
    found = from_hugging_face(content | {"rope_scaling": old, "rope_parameters": new}, "config.json")
    assert found == from_hugging_face(content | {"rope_scaling": old, "rope_theta": 77.0}, "config.json")
    assert found.rope_scaling is not None and found.rope_theta == 77.0


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_a_tied_head_with_another_matrix_is_refused(architecture, tmp_path):
    more = {"num_key_value_heads": 4, **FAMILIES["gpt2"].fixed} if architecture == "gpt2" else {}
    save_model(
        filled(Transformer(config(tie_word_embeddings=True, architecture=architecture, **more))), tmp_path, {}
    )
    before = load_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    embedding = next(name for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight")))
    tensors["lm_head.weight"] = tensors[embedding].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path).embedding.weight, before.embedding.weight)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(Refused, match=r"lm_head\.weight differs from .*one weight"):
        load_model(tmp_path)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:, :5].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(Refused, match=r"lm_head\.weight differs"):
        load_model(tmp_path)


def test_a_model_type_that_is_no_name(tmp_path):
    put(tmp_path, _SMALL | {"model_type": ["llama"]})
    with pytest.raises(NotNative, match="llama"):
        load_config(tmp_path)
