"""How each family says its config: readers (config.json → our fields) and writers (the other way)."""

from __future__ import annotations

from typing import Any

from ownlm.console.errors import Refused
from ownlm.model.config import ModelConfig
from ownlm.model.fields import Fields

# Names of activations in config.json -> ours. The first name of ours is the one that is written.
_ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu", "relu2": "relu2",
}  # fmt: skip


def read_llama_like(fields: Fields, **more: Any) -> dict[str, Any]:
    """What all Llama-like configs share; `more` are a family's own fields."""
    heads, width = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    return {
        "vocab_size": fields.integer("vocab_size"),
        "hidden_size": width,
        "num_hidden_layers": fields.integer("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.integer("num_key_value_heads", heads),
        "head_dim": fields.integer("head_dim", width // max(heads, 1)),
        "intermediate_size": fields.integer("intermediate_size"),
        "max_position_embeddings": fields.integer("max_position_embeddings"),
        "activation": _activation(fields, "hidden_act", "silu"),
        "norm_eps": fields.number("rms_norm_eps", 1e-6),
        "tie_word_embeddings": fields.flag("tie_word_embeddings"),
        **fields.rope(),
        **more,
    }


def write_llama_like(config: ModelConfig, **more: Any) -> dict[str, Any]:
    theta = config.rope_theta
    scaling = {} if config.rope_scaling is None else config.rope_scaling.to_hugging_face()
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_act": _activation_name(config.activation),
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", **scaling, "rope_theta": theta},
        # Read by transformers 4 and by llama.cpp's converter:
        "rope_theta": theta,
        **({"rope_scaling": scaling} if scaling else {}),
        "attention_dropout": 0.0,
        **more,
    }


def _activation(fields: Fields, name: str, default: str) -> str:
    fields.only(name, default, *_ACTIVATIONS)
    return _ACTIVATIONS[fields.get(name, default)]


def _activation_name(activation: str, *, gelu_tanh: str = "gelu_pytorch_tanh") -> str:
    if activation == "gelu_tanh":
        return gelu_tanh
    return next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == activation)


def biases(fields: Fields) -> dict[str, Any]:
    """`attention_bias` of most families: on all four matrices or on none."""
    bias = fields.flag("attention_bias")
    return {"attention_bias": bias, "attention_output_bias": bias}


def same_biases(config: ModelConfig) -> dict[str, Any]:
    if config.attention_bias != config.attention_output_bias:
        raise Refused(
            f"attention_bias={config.attention_bias} with attention_output_bias={config.attention_output_bias} "
            f"cannot be written as {config.architecture}.",
            why="There both are one setting.",
        )
    return {"attention_bias": config.attention_bias}


def _windows(fields: Fields, layers: int, default: list[bool]) -> dict[str, Any]:
    """The window and its layers, from `layer_types` or else from the family's own default."""
    window = fields.get("sliding_window")
    kinds = fields.get("layer_types")
    if kinds is None:
        kinds = ["sliding_attention" if default[i] and window else "full_attention" for i in range(layers)]
    known = ("full_attention", "sliding_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in known for kind in kinds):
        raise Refused(
            f"layer_types is {str(kinds)[:80]}: {layers} times one of {', '.join(known)} is expected.",
            where=fields.where,
        )
    windowed = tuple(i for i, kind in enumerate(kinds) if kind == "sliding_attention")
    if not windowed:
        return {"sliding_window": None, "window_layers": None}
    return {"sliding_window": fields.integer("sliding_window"), "window_layers": windowed}


def _layers_of(fields: Fields) -> int:
    """The number of layers, small enough to make lists of (the config itself checks it again)."""
    return min(max(fields.integer("num_hidden_layers"), 0), 100_000)


def _kinds(config: ModelConfig) -> list[str]:
    layers = range(config.num_hidden_layers)
    return ["full_attention" if config.window_of(i) is None else "sliding_attention" for i in layers]


def read_qwen(fields: Fields) -> dict[str, Any]:
    layers = _layers_of(fields)
    first = fields.integer("max_window_layers", 28)
    if not fields.flag("use_sliding_window"):
        fields.get("layer_types"), fields.get("sliding_window")  # without effect then, as upstream
        return {"sliding_window": None, "window_layers": None}
    return _windows(fields, layers, [i >= first for i in range(layers)])


def write_windows(config: ModelConfig) -> dict[str, Any]:
    return {
        "use_sliding_window": config.sliding_window is not None,
        "sliding_window": config.sliding_window,
        "layer_types": _kinds(config),
    }


def read_everywhere(fields: Fields, missing: int | None = None) -> dict[str, Any]:
    """One window on every layer; `missing`: what a config that does not say it means (null says that there is none)."""
    window = fields.get("sliding_window", None if "sliding_window" in fields.content else missing)
    return {
        "sliding_window": fields.integer("sliding_window", missing) if window is not None else None,
        "window_layers": None,
    }


def write_everywhere(config: ModelConfig) -> dict[str, Any]:
    if config.window_layers is not None and len(config.window_layers) < config.num_hidden_layers:
        raise Refused(
            f"window_layers={config.window_layers} cannot be written as "
            f"{config.architecture}, whose window is on every layer."
        )
    return {"sliding_window": config.sliding_window}


def read_smollm3(fields: Fields) -> dict[str, Any]:
    layers = _layers_of(fields)
    every = fields.integer("no_rope_layer_interval", 4)
    fields.get("max_window_layers")  # in the published config; upstream has no such field in this family
    rotary = fields.get("no_rope_layers")  # upstream's name: 1 where a layer HAS rotary positions
    if rotary is None:
        rotary = [int((i + 1) % max(every, 1) != 0) for i in range(layers)]
    if not isinstance(rotary, list) or len(rotary) != layers:
        raise Refused(f"no_rope_layers needs one number for each of {layers} layers.", where=fields.where)
    without = tuple(i for i, has in enumerate(rotary) if not has)
    if fields.flag("use_sliding_window"):
        windows = _windows(fields, layers, [not has for has in rotary])
    else:
        fields.get("layer_types"), fields.get("sliding_window")
        windows = {"sliding_window": None, "window_layers": None}
    tied = {"tie_word_embeddings": fields.flag("tie_word_embeddings", True)}
    return {"no_rope_layers": without, **windows, **tied, **fields.rope(2_000_000.0)}


def write_smollm3(config: ModelConfig) -> dict[str, Any]:
    rotary = [int(i not in config.no_rope_layers) for i in range(config.num_hidden_layers)]
    return {"no_rope_layers": rotary, **write_windows(config)}


def read_gpt2(fields: Fields) -> dict[str, Any]:
    width, heads = fields.integer("n_embd"), fields.integer("n_head")
    fields.only("scale_attn_weights", True)
    fields.only("scale_attn_by_inverse_layer_idx", False)
    fields.only("add_cross_attention", False)
    fields.get("reorder_and_upcast_attn")  # the order of two factors: no other result
    return {
        "vocab_size": fields.integer("vocab_size"),
        "hidden_size": width,
        "num_hidden_layers": fields.integer("n_layer"),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // max(heads, 1),
        "intermediate_size": fields.integer("n_inner", 4 * width),
        "max_position_embeddings": fields.integer("n_positions", 1024),
        "activation": _activation(fields, "activation_function", "gelu_new"),
        "norm_eps": fields.number("layer_norm_epsilon", 1e-5),
        "tie_word_embeddings": fields.flag("tie_word_embeddings", True),
    }


def write_gpt2(config: ModelConfig) -> dict[str, Any]:
    if config.num_key_value_heads != config.num_attention_heads:
        raise Refused("grouped key-value heads cannot be written as GPT2LMHeadModel.")
    return {
        "n_embd": config.hidden_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_inner": config.intermediate_size,
        "n_positions": config.max_position_embeddings,
        "n_ctx": config.max_position_embeddings,
        "activation_function": _activation_name(config.activation, gelu_tanh="gelu_new"),
        "layer_norm_epsilon": config.norm_eps,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }


def _no_head_dim(config: ModelConfig) -> None:
    """For families whose head size is always width / heads."""
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        raise Refused(
            f"{config.num_attention_heads} heads of {config.head_dim} in a width of {config.hidden_size} cannot be "
            f"written as {config.architecture}: there a head has width / heads."
        )


def write_without_head_dim(config: ModelConfig, **more: Any) -> dict[str, Any]:
    _no_head_dim(config)
    content = write_llama_like(config, **more)
    del content["head_dim"]
    return content


def read_phi3(fields: Fields) -> dict[str, Any]:
    fields.get("original_max_position_embeddings")  # of longrope only, which is refused
    return read_everywhere(fields)
