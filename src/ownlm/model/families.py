"""A family is a table: config fields and weight names, to and from Hugging Face; never a subclass.

What a family always has is in `fixed`; what varies is read by `read` and written by `write`. Weights keep the
family's own boundaries (GPT-2's c_attn, Phi-3's qkv_proj), so that adapters and tools find what they know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ownlm.console.errors import Refused, UsageError
from ownlm.model.config import ModelConfig
from ownlm.model.family_fields import (
    biases,
    read_everywhere,
    read_gpt2,
    read_llama_like,
    read_phi3,
    read_qwen,
    read_smollm3,
    same_biases,
    write_everywhere,
    write_gpt2,
    write_llama_like,
    write_smollm3,
    write_windows,
    write_without_head_dim,
)
from ownlm.model.fields import Fields, NotNative

# Ours -> theirs; `{i}` is the layer.
_LLAMA_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
    "blocks.{i}.attention_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "blocks.{i}.mlp_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    **{
        f"blocks.{{i}}.mlp.{m}.{w}": f"model.layers.{{i}}.mlp.{m}.{w}"
        for m in ("gate_proj", "up_proj", "down_proj", "gate_up_proj")
        for w in ("weight", "bias")
    },
    **{
        f"blocks.{{i}}.attention.{m}.{w}": f"model.layers.{{i}}.self_attn.{m}.{w}"
        for m in ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "q_norm", "k_norm")
        for w in ("weight", "bias")
    },
}
_OLMO2_NAMES = {
    **_LLAMA_NAMES,
    "blocks.{i}.attention_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.mlp_norm.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}
_GPT2_NAMES = {
    "embedding.weight": "transformer.wte.weight",
    "position_embedding.weight": "transformer.wpe.weight",
    "lm_head.weight": "lm_head.weight",
    **{
        f"{ours}.{w}": f"transformer.{theirs}.{w}"
        for ours, theirs in {
            "norm": "ln_f",
            "blocks.{i}.attention_norm": "h.{i}.ln_1",
            "blocks.{i}.mlp_norm": "h.{i}.ln_2",
            "blocks.{i}.attention.qkv_proj": "h.{i}.attn.c_attn",
            "blocks.{i}.attention.o_proj": "h.{i}.attn.c_proj",
            "blocks.{i}.mlp.up_proj": "h.{i}.mlp.c_fc",
            "blocks.{i}.mlp.down_proj": "h.{i}.mlp.c_proj",
        }.items()
        for w in ("weight", "bias")
    },
}


@dataclass(frozen=True)
class Family:
    """One row: how a Hugging Face architecture maps to ours.

    Args:
        hf_class: the value of `architectures` in config.json.
        names: our weight names -> theirs.
        fixed: our config fields that this family always has.
        read: their config -> our other fields.
        write: our config -> their config.json (without the common fields).
        prefix: of the weights below the head; checkpoints of the bare model leave it out.
        transposed: our names whose matrices are stored [in, out] (GPT-2's Conv1D).
        no_weights: patterns of stored tensors that hold nothing learnt (masks, rotary tables).
    """

    hf_class: str
    names: dict[str, str]
    fixed: dict[str, Any]
    read: Callable[[Fields], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]
    prefix: str = "model."
    transposed: frozenset[str] = frozenset()
    no_weights: tuple[str, ...] = (r".*\.rotary_emb\.inv_freq", r".*\.masked_bias")


_FIXED = {
    "norm": "rms", "norm_placement": "before", "positions": "rotary", "mlp": "gated", "fused_qkv": False,
    "fused_gate_up": False, "qk_norm": "none", "causal": True, "no_rope_layers": (), "mlp_bias": False,
    "attention_bias": False, "attention_output_bias": False, "attention_scale": None, "sliding_window": None,
}  # fmt: skip


def _fixed(*free: str, **always: Any) -> dict[str, Any]:
    """What a family always has: Llama's layout with changes, without the fields its config may vary."""
    return {name: value for name, value in {**_FIXED, **always}.items() if name not in free}


FAMILIES = {
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _LLAMA_NAMES,
        _fixed("attention_bias", "attention_output_bias", "sliding_window", qk_norm="head"),
        lambda f: read_llama_like(
            f, head_dim=f.integer("head_dim", 128), **biases(f), **read_qwen(f)
        ),
        lambda c: write_llama_like(
            c, **same_biases(c), **write_windows(c), max_window_layers=c.num_hidden_layers
        ),
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _LLAMA_NAMES,
        _fixed("sliding_window", attention_bias=True),
        lambda f: read_llama_like(f, **read_qwen(f)),
        lambda c: write_without_head_dim(c, **write_windows(c), max_window_layers=c.num_hidden_layers),
    ),
    "llama": Family(
        "LlamaForCausalLM",
        _LLAMA_NAMES,
        _fixed("attention_bias", "attention_output_bias", "mlp_bias"),
        lambda f: read_llama_like(f, **biases(f), mlp_bias=f.flag("mlp_bias")),
        lambda c: write_llama_like(c, **same_biases(c), mlp_bias=c.mlp_bias),
    ),
    "mistral": Family(
        "MistralForCausalLM",
        _LLAMA_NAMES,
        _fixed("sliding_window"),
        lambda f: read_llama_like(f, **read_everywhere(f, missing=4096)),  # as in its first release
        lambda c: write_llama_like(c, **write_everywhere(c)),
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        _OLMO2_NAMES,
        _fixed("attention_bias", "attention_output_bias", norm_placement="after", qk_norm="full"),
        lambda f: read_llama_like(f, norm_eps=f.number("rms_norm_eps", 1e-5), **biases(f)),
        lambda c: write_without_head_dim(c, **same_biases(c)),
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        _LLAMA_NAMES,
        _fixed("sliding_window", fused_qkv=True, fused_gate_up=True),
        lambda f: read_llama_like(f, norm_eps=f.number("rms_norm_eps", 1e-5), **read_phi3(f)),
        lambda c: write_without_head_dim(
            c, **write_everywhere(c), original_max_position_embeddings=c.max_position_embeddings
        ),
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        _LLAMA_NAMES,
        _fixed("attention_bias", "attention_output_bias", "mlp_bias", "sliding_window", "no_rope_layers"),
        lambda f: read_llama_like(f, **biases(f), mlp_bias=f.flag("mlp_bias")) | read_smollm3(f),
        lambda c: write_without_head_dim(c, **same_biases(c), mlp_bias=c.mlp_bias, **write_smollm3(c)),
    ),
    "gpt2": Family(
        "GPT2LMHeadModel",
        _GPT2_NAMES,
        _fixed(norm="layer", positions="learned", mlp="plain", fused_qkv=True, mlp_bias=True,
               attention_bias=True, attention_output_bias=True),
        read_gpt2,
        write_gpt2,
        prefix="transformer.",
        transposed=frozenset(f"blocks.{{i}}.{m}.weight" for m in (
            "attention.qkv_proj", "attention.o_proj", "mlp.up_proj", "mlp.down_proj")),
        no_weights=(r".*\.attn\.(masked_)?bias",),
    ),
}  # fmt: skip


def to_hugging_face(config: ModelConfig, special_ids: dict[str, int]) -> dict[str, Any]:
    """The config.json of a model.

    Args:
        special_ids: bos_token_id, eos_token_id, pad_token_id: of the tokenizer beside the weights.

    Raises:
        Refused: the config cannot be said in this family's words (then no other tool could load the folder).
    """
    family = FAMILIES[config.architecture]
    for name, value in family.fixed.items():
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
        **family.write(config),
        # Said even when there is none: some families' defaults lie outside of a small vocabulary.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        **special_ids,
    }


def from_hugging_face(content: dict[str, Any], where: object) -> ModelConfig:
    """Our config of a config.json; a field we do not support is refused by name, never ignored.

    Raises:
        Refused: another architecture, an unsupported field, numbers that make no model.
    """
    fields = Fields(content, where)
    if fields.kind not in FAMILIES:
        raise NotNative(
            f'the architecture "{fields.kind}" is not built in.',
            where=where,
            why=f"Built in: {', '.join(FAMILIES)}, bert, roberta, distilbert.",
        )
    family = FAMILIES[fields.kind]
    found = family.read(fields)
    fields.refuse_unknown()
    spread = content.get("initializer_range")
    if isinstance(spread, float) and 0 < spread < 10:
        found["initializer_range"] = spread
    try:
        return ModelConfig(architecture=fields.kind, **{**family.fixed, **found})
    except UsageError as error:
        raise Refused(str(error), where=where) from None


def pattern_of(name: str) -> tuple[str, str]:
    """`blocks.3.mlp.up_proj.weight` -> (`blocks.{i}.mlp.up_proj.weight`, "3")."""
    layer = re.match(r"blocks\.(\d+)\.", name)
    return re.sub(r"^blocks\.\d+\.", "blocks.{i}.", name), layer[1] if layer else ""


def to_hf_name(name: str, architecture: str) -> str:
    """`blocks.3.mlp.up_proj.weight` -> `model.layers.3.mlp.up_proj.weight`."""
    pattern, layer = pattern_of(name)
    return FAMILIES[architecture].names[pattern].replace("{i}", layer)


def is_transposed(name: str, architecture: str) -> bool:
    """Whether the family stores this weight [in, out]."""
    return pattern_of(name)[0] in FAMILIES[architecture].transposed
