"""A family is a table: config fields and weight names, to and from Hugging Face; never a subclass."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ownlm.console.errors import Refused
from ownlm.model.config import ModelConfig

# Our names beside those of Llama-like checkpoints; `{i}` is the layer.
_LLAMA_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
    "blocks.{i}.attention_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "blocks.{i}.mlp_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    **{
        f"blocks.{{i}}.mlp.{m}.weight": f"model.layers.{{i}}.mlp.{m}.weight"
        for m in ("gate_proj", "up_proj", "down_proj")
    },
    **{
        f"blocks.{{i}}.attention.{m}.weight": f"model.layers.{{i}}.self_attn.{m}.weight"
        for m in ("q_proj", "k_proj", "v_proj", "o_proj")
    },
}
_QWEN3_NAMES = {
    **_LLAMA_NAMES,
    "blocks.{i}.attention.q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blocks.{i}.attention.k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
}


@dataclass(frozen=True)
class Family:
    """One row: how a Hugging Face architecture maps to ours.

    Args:
        hf_class: the value of `architectures` in config.json.
        names: our weight names -> theirs.
        to_hf: our config -> their config.json (without the common fields).
        fixed: our config fields that this family always has.
    """

    hf_class: str
    names: dict[str, str]
    fixed: dict[str, Any]
    to_hf: Callable[[ModelConfig], dict[str, Any]]


def _llama_like(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_act": config.activation,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,  # read by transformers 4
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
    }


def _qwen3(config: ModelConfig) -> dict[str, Any]:
    windowed = config.sliding_window is not None
    kinds = [
        "full_attention" if config.window_of(i) is None else "sliding_attention"
        for i in range(config.num_hidden_layers)
    ]
    return {
        **_llama_like(config),
        "use_sliding_window": windowed,
        "sliding_window": config.sliding_window,
        "max_window_layers": config.num_hidden_layers,
        "layer_types": kinds,
    }


def _llama(config: ModelConfig) -> dict[str, Any]:
    return {**_llama_like(config), "mlp_bias": config.mlp_bias}


FAMILIES = {
    "qwen3": Family("Qwen3ForCausalLM", _QWEN3_NAMES, {"qk_norm": "head"}, _qwen3),
    "llama": Family("LlamaForCausalLM", _LLAMA_NAMES, {"qk_norm": "none"}, _llama),
}
_SHARED = {"norm": "rms", "norm_placement": "before", "positions": "rotary", "mlp": "gated", "fused_qkv": False,
           "causal": True, "no_rope_layers": (), "mlp_bias": False, "attention_output_bias": False,
           "attention_scale": None, "activation": "silu", "attention_bias": False}  # fmt: skip


def to_hugging_face(config: ModelConfig, special_ids: dict[str, int]) -> dict[str, Any]:
    """The config.json of a model.

    Args:
        special_ids: bos_token_id, eos_token_id, pad_token_id: of the tokenizer beside the weights.

    Raises:
        Refused: the config cannot be said in this family's words (then no other tool could load the folder).
    """
    family = FAMILIES[config.architecture]
    for name, value in {**_SHARED, **family.fixed}.items():
        if getattr(config, name) != value:
            raise Refused(
                f"{name}={getattr(config, name)!r} cannot be written as {family.hf_class}, which has {value!r}.",
                why="A run folder must open in other tools as it is.",
            )
    return {
        "architectures": [family.hf_class],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "use_cache": True,
        "dtype": "float32",
        **family.to_hf(config),
        **special_ids,
    }


def from_hugging_face(content: dict[str, Any], where: object) -> ModelConfig:
    """Our config of a config.json; a field we do not support is refused by name, never ignored."""
    kind = content.get("model_type")
    if kind not in FAMILIES:
        raise Refused(
            f'the architecture "{kind}" is not one this version opens.',
            where=where,
            why=f"Known: {', '.join(FAMILIES)}.",
        )
    rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise Refused(f"RoPE type {rope.get('rope_type', rope.get('type'))!r} is not supported.", where=where)
    for name, allowed in (
        ("hidden_act", ("silu",)),
        ("attention_bias", (False, None)),
        ("mlp_bias", (False, None)),
    ):
        if content.get(name, allowed[0]) not in allowed:
            raise Refused(f"{name}={content[name]!r} is not supported in {kind}.", where=where)
    try:
        heads = int(content["num_attention_heads"])
        layers = int(content["num_hidden_layers"])
        windowed = bool(content.get("use_sliding_window")) and content.get("sliding_window") is not None
        kinds = content.get("layer_types") or ["sliding_attention" if windowed else "full_attention"] * layers
        return ModelConfig(
            vocab_size=int(content["vocab_size"]),
            hidden_size=int(content["hidden_size"]),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=int(content.get("num_key_value_heads") or heads),
            head_dim=int(content.get("head_dim") or content["hidden_size"] // heads),
            intermediate_size=int(content["intermediate_size"]),
            max_position_embeddings=int(content["max_position_embeddings"]),
            architecture=kind,
            norm_eps=float(content.get("rms_norm_eps", 1e-6)),
            rope_theta=float(rope.get("rope_theta", content.get("rope_theta", 10_000.0))),
            tie_word_embeddings=bool(content.get("tie_word_embeddings", False)),
            sliding_window=int(content["sliding_window"]) if windowed else None,
            window_layers=tuple(i for i, k in enumerate(kinds) if k == "sliding_attention")
            if windowed
            else None,
            initializer_range=float(content.get("initializer_range", 0.02)),
            **FAMILIES[kind].fixed,
        )
    except KeyError as error:
        raise Refused(f"config.json has no field {error}.", where=where) from None


def to_hf_name(name: str, architecture: str) -> str:
    """`blocks.3.mlp.up_proj.weight` -> `model.layers.3.mlp.up_proj.weight`."""
    layer = re.match(r"blocks\.(\d+)\.", name)
    pattern = re.sub(r"^blocks\.\d+\.", "blocks.{i}.", name)
    return FAMILIES[architecture].names[pattern].replace("{i}", layer[1] if layer else "")
