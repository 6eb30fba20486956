"""BERT, RoBERTa and DistilBERT in Hugging Face words: config fields and weight names.

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
_DISTIL_LAYER = {
    "attention.query": "attention.q_lin",
    "attention.key": "attention.k_lin",
    "attention.value": "attention.v_lin",
    "attention.output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "mlp.up_proj": "ffn.lin1",
    "mlp.down_proj": "ffn.lin2",
    "mlp_norm": "output_layer_norm",
}
# Our config fields -> theirs.
_FIELDS = {
    "hidden_size": "hidden_size", "num_hidden_layers": "num_hidden_layers", "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size", "activation": "hidden_act",
}  # fmt: skip
_DISTIL_FIELDS = {
    "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim", "activation": "activation",
}  # fmt: skip
# Names of activations in config.json -> ours; the first name of ours is the one that is written.
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip


def _names(
    prefix: str, dense: str, norm: str, bias: str, decoder: str, layers: str = "encoder.layer"
) -> dict[str, str]:
    """Our weight names -> theirs; `{i}` is the layer. `dense`, `norm`, `bias`, `decoder`: of the head."""
    layer = _DISTIL_LAYER if prefix == "distilbert." else _LAYER
    modules = {
        "embeddings.norm": f"{prefix}embeddings.LayerNorm",
        **{f"blocks.{{i}}.{ours}": f"{prefix}{layers}.{{i}}.{theirs}" for ours, theirs in layer.items()},
        "pooler": f"{prefix}pooler.dense",
        "next_sentence": "cls.seq_relationship",
        "head.dense": dense,
        "head.norm": norm,
        "head.decoder": decoder,
    }
    return {
        "embeddings.token.weight": f"{prefix}embeddings.word_embeddings.weight",
        "embeddings.position.weight": f"{prefix}embeddings.position_embeddings.weight",
        "embeddings.token_type.weight": f"{prefix}embeddings.token_type_embeddings.weight",
        "head.bias": bias,
        **{f"{ours}.{w}": f"{theirs}.{w}" for ours, theirs in modules.items() for w in ("weight", "bias")},
    }


@dataclass(frozen=True)
class MaskedFamily:
    """One row: what a Hugging Face architecture calls things.

    Args:
        classes: values of `architectures` that are read: with the head, the bare model, with all heads.
        prefix: of the weights below the head; checkpoints of the bare model leave it out.
        head: prefix of the head's weights.
        names: our weight names -> theirs.
        copies: their names of a tied head's second copies -> our names of the first ones.
        pad_token_id: when config.json does not say it.
        fields: our config fields -> theirs.
    """

    classes: tuple[str, ...]
    prefix: str
    head: str
    names: dict[str, str]
    copies: dict[str, str]
    pad_token_id: int
    fields: dict[str, str]


MASKED_FAMILIES = {
    "bert": MaskedFamily(
        ("BertForMaskedLM", "BertModel", "BertForPreTraining"),
        "bert.",
        "cls.predictions.",
        _names(
            "bert.",
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.bias",
            "cls.predictions.decoder",
        ),
        {
            "cls.predictions.decoder.weight": "embeddings.token.weight",
            "cls.predictions.decoder.bias": "head.bias",
        },
        0,
        _FIELDS,
    ),
    "roberta": MaskedFamily(
        ("RobertaForMaskedLM", "RobertaModel"),
        "roberta.",
        "lm_head.",
        _names("roberta.", "lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"),
        {"lm_head.decoder.weight": "embeddings.token.weight", "lm_head.decoder.bias": "head.bias"},
        1,
        _FIELDS,
    ),
    "distilbert": MaskedFamily(
        ("DistilBertForMaskedLM", "DistilBertModel"),
        "distilbert.",
        "vocab_",
        _names(
            "distilbert.",
            "vocab_transform",
            "vocab_layer_norm",
            "vocab_projector.bias",
            "vocab_projector",
            layers="transformer.layer",
        ),
        {"vocab_projector.weight": "embeddings.token.weight"},
        0,
        _DISTIL_FIELDS,
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
    _refuse_changed(fields)
    theirs = family.fields
    distilled = fields.kind == "distilbert"
    fields.only(theirs["activation"], "gelu", *_ACTIVATIONS)
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    found: dict[str, Any] = {
        "vocab_size": fields.integer("vocab_size"),
        **{name: fields.integer(theirs[name]) for name in sizes},
        "max_position_embeddings": fields.integer("max_position_embeddings"),
        "type_vocab_size": 0 if distilled else fields.integer("type_vocab_size", 2),
        "activation": _ACTIVATIONS[fields.get(theirs["activation"], "gelu")],
        "norm_eps": 1e-12 if distilled else fields.number("layer_norm_eps", 1e-12),
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


def _refuse_changed(fields: Fields) -> None:
    """Take the fields that change what is computed and are not built in, and those that never change it."""
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
    if fields.kind == "distilbert":
        # Of training, and how the stored table of positions was filled.
        for name in ("dropout", "qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "tie_weights_"):
            fields.get(name)


def encoder_to_hugging_face(config: EncoderConfig, special_ids: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of an `Encoder`.

    Args:
        special_ids: bos_token_id, eos_token_id of the tokenizer beside the weights.
    """
    family = MASKED_FAMILIES[config.architecture]
    masked, bare, *rest = family.classes
    written = masked if config.head else bare
    if config.head and config.next_sentence and rest:
        written = rest[0]
    of_types_and_norms = {"type_vocab_size": config.type_vocab_size, "layer_norm_eps": config.norm_eps}
    if config.architecture == "distilbert":  # no types, and always the same epsilon
        of_types_and_norms = {}
    activation = next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == config.activation)
    return {
        "architectures": [written],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        **{theirs: getattr(config, ours) for ours, theirs in family.fields.items() if ours != "activation"},
        family.fields["activation"]: activation,
        "max_position_embeddings": config.max_position_embeddings,
        **of_types_and_norms,
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
