"""BERT and RoBERTa in Hugging Face words: config fields and weight names.

The rules are those of the causal families: what is not known is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ownlm.console.errors import Refused, UsageError
from ownlm.model.encoder import EncoderConfig
from ownlm.model.families import pattern_of
from ownlm.model.fields import Fields, NotNative

_LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp.up_proj": "intermediate.dense",
    "mlp.down_proj": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
# Names of activations in config.json -> ours; the first name of ours is the one that is written.
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip


def _names(prefix: str, head: str, dense: str, norm: str) -> dict[str, str]:
    """Our weight names -> theirs; `{i}` is the layer."""
    modules = {
        "embeddings.norm": f"{prefix}embeddings.LayerNorm",
        **{
            f"blocks.{{i}}.{ours}": f"{prefix}encoder.layer.{{i}}.{theirs}" for ours, theirs in _LAYER.items()
        },
        "pooler": f"{prefix}pooler.dense",
        "next_sentence": "cls.seq_relationship",
        "head.dense": head + dense,
        "head.norm": head + norm,
        "head.decoder": f"{head}decoder",
    }
    return {
        "embeddings.token.weight": f"{prefix}embeddings.word_embeddings.weight",
        "embeddings.position.weight": f"{prefix}embeddings.position_embeddings.weight",
        "embeddings.token_type.weight": f"{prefix}embeddings.token_type_embeddings.weight",
        "head.bias": f"{head}bias",
        **{f"{ours}.{w}": f"{theirs}.{w}" for ours, theirs in modules.items() for w in ("weight", "bias")},
    }


@dataclass(frozen=True)
class MaskedFamily:
    """One row: what a Hugging Face architecture calls things.

    Args:
        classes: values of `architectures` that are read: with the head, the bare model, with all heads.
        prefix: of the weights below the head; checkpoints of the bare model leave it out.
        head: prefix of the head's weights.
        pad_token_id: when config.json does not say it.
    """

    classes: tuple[str, ...]
    prefix: str
    head: str
    names: dict[str, str]
    pad_token_id: int


MASKED_FAMILIES = {
    "bert": MaskedFamily(
        ("BertForMaskedLM", "BertModel", "BertForPreTraining"),
        "bert.",
        "cls.predictions.",
        _names("bert.", "cls.predictions.", "transform.dense", "transform.LayerNorm"),
        0,
    ),
    "roberta": MaskedFamily(
        ("RobertaForMaskedLM", "RobertaModel"),
        "roberta.",
        "lm_head.",
        _names("roberta.", "lm_head.", "dense", "layer_norm"),
        1,
    ),
}


def is_masked(content: Mapping[str, Any]) -> bool:
    """Whether a config.json says one of the masked models that are built in."""
    return str(content.get("model_type")) in MASKED_FAMILIES  # a list, say, has no hash


def fills_masks(content: Mapping[str, Any]) -> bool:
    """Whether a config.json says a masked model, built in or not."""
    names = content.get("architectures") or []
    return is_masked(content) or any(str(name).endswith("ForMaskedLM") for name in names)


def encoder_config(content: Mapping[str, Any], where: object, **parts: bool) -> EncoderConfig:
    """Our config of a config.json.

    Args:
        parts: `head`, `pooler`, `next_sentence`: what the weights hold, which config.json does not say.

    Raises:
        NotNative: a field, value or class that is not built in. Refused: numbers that make no model.
    """
    fields = Fields(content, where)
    family = MASKED_FAMILIES[fields.kind]
    classes = fields.get("architectures") or []
    unknown = [name for name in classes if name not in family.classes]
    if unknown:
        known = ", ".join(family.classes)
        raise NotNative(f"{unknown[0]} is not built in.", where=where, why=f"Built in: {known}.")
    for name, allowed in {
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "directionality": "bidi",  # this and the next: left from the first release's own config
        "pooler_type": "first_token_transform",
    }.items():
        fields.only(name, allowed)
    for name in ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head"):
        fields.get(f"pooler_{name}")  # sizes of a pooler that was never released; upstream reads none of them
    fields.get("output_past")  # of generation with a cache
    fields.only("hidden_act", "gelu", *_ACTIVATIONS)
    found: dict[str, Any] = {
        "vocab_size": fields.integer("vocab_size"),
        "hidden_size": fields.integer("hidden_size"),
        "num_hidden_layers": fields.integer("num_hidden_layers"),
        "num_attention_heads": fields.integer("num_attention_heads"),
        "intermediate_size": fields.integer("intermediate_size"),
        "max_position_embeddings": fields.integer("max_position_embeddings"),
        "type_vocab_size": fields.integer("type_vocab_size", 2),
        "activation": _ACTIVATIONS[fields.get("hidden_act", "gelu")],
        "norm_eps": fields.number("layer_norm_eps", 1e-12),
        "tie_word_embeddings": fields.flag("tie_word_embeddings", True),
        "initializer_range": fields.number("initializer_range", 0.02),
        "pad_token_id": None,
    }
    if content.get("pad_token_id", family.pad_token_id) is not None:
        found["pad_token_id"] = fields.integer("pad_token_id", family.pad_token_id)
    fields.refuse_unknown()
    try:
        return EncoderConfig(architecture=fields.kind, **found, **parts)  # type: ignore[arg-type]
    except UsageError as error:
        raise Refused(str(error), where=where) from None


def encoder_to_hugging_face(config: EncoderConfig, special_ids: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of an `Encoder`.

    Args:
        special_ids: bos_token_id, eos_token_id of the tokenizer beside the weights.
    """
    masked, bare, *rest = MASKED_FAMILIES[config.architecture].classes
    written = masked if config.head else bare
    if config.head and config.next_sentence and rest:
        written = rest[0]
    activation = next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == config.activation)
    return {
        "architectures": [written],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": activation,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size,
        "layer_norm_eps": config.norm_eps,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        **dict.fromkeys(("bos_token_id", "eos_token_id")),
        **special_ids,
        "pad_token_id": config.pad_token_id,  # positions depend on it
    }


def encoder_hf_name(name: str, architecture: str) -> str:
    """`blocks.3.attention.query.weight` -> `bert.encoder.layer.3.attention.self.query.weight`."""
    pattern, layer = pattern_of(name)
    return MASKED_FAMILIES[architecture].names[pattern].replace("{i}", layer)
