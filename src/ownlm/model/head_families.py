"""Task heads in Hugging Face words: which classes there are, what their weights and config fields are called.

Which family has which class follows transformers 5.23 (models/auto/modeling_auto.py). Causal families have one matrix
`score` (`classifier` or `qa_outputs` for some); the class for questions of some of them calls its body `transformer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ownlm.console.errors import Refused
from ownlm.model.encoder_families import MASKED_FAMILIES, encoder_hf_name
from ownlm.model.families import FAMILIES, to_hf_name

HeadKind = Literal["sequence-classification", "token-classification", "question-answering"]
KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
DOES = {
    "sequence-classification": "It gives a text one of its labels.",
    "token-classification": "It gives each word of a text one of its labels.",
    "question-answering": "It finds the answer to a question in a text.",
}
_SUFFIX = {
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}
STEMS = {
    "qwen3": "Qwen3", "qwen2": "Qwen2", "llama": "Llama", "mistral": "Mistral", "olmo2": "Olmo2", "phi3": "Phi3",
    "smollm3": "SmolLM3", "gpt2": "GPT2", "bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert",
}  # fmt: skip
_MISSING = {
    ("olmo2", "token-classification"),
    ("olmo2", "question-answering"),
    ("phi3", "question-answering"),
}
_OTHER_PREFIX = ("qwen3", "qwen2", "llama", "smollm3")  # of the class for questions
# config.json's field for the dropout before DistilBERT's heads.
_DISTIL_DROPOUT = {
    "sequence-classification": "seq_classif_dropout",
    "token-classification": "dropout",
    "question-answering": "qa_dropout",
}


@dataclass(frozen=True)
class HeadForm:
    """One family's head of one kind.

    Attributes:
        hf_class: the value of `architectures` in config.json.
        output: their name of the matrix that gives the logits.
        bias: whether it has one.
        dense: their name of a matrix before it, "" where there is none.
        activation: after `dense`.
        pooler: BERT's pooler stands before it.
        prefix: of the body's weights.
        dropout_fields: config fields that say the dropout, the first that is given counts; () where there is none.
            The first is the one that is written.
    """

    hf_class: str
    output: str
    bias: bool
    dense: str
    activation: Literal["", "tanh", "relu"]
    pooler: bool
    prefix: str
    dropout_fields: tuple[str, ...]


def is_encoder(architecture: str) -> bool:
    """Whether the body is an `Encoder`; else it is a `Transformer`."""
    return architecture in MASKED_FAMILIES


def head_class(architecture: str, kind: str) -> str | None:
    """The class of transformers, or None where it has none."""
    if architecture not in STEMS or (architecture, kind) in _MISSING:
        return None
    return STEMS[architecture] + _SUFFIX[kind]


def head_form(architecture: str, kind: str) -> HeadForm:
    """How a family's head looks.

    Raises:
        Refused: transformers has no such class, so no other tool could open the folder.
    """
    named = head_class(architecture, kind)
    if named is None:
        works = [name for name in STEMS if head_class(name, kind)]
        raise Refused(
            f"there is no head for {kind} on {architecture} models.",
            why=f"transformers has no such class; it has one for {', '.join(works)}.",
            do="a model of one of these families",
        )
    if kind == "question-answering":
        output, bias = "qa_outputs", True
    elif is_encoder(architecture) or (architecture == "gpt2" and kind == "token-classification"):
        output, bias = "classifier", True
    else:
        output, bias = "score", kind == "token-classification"
    dense, activation = "", ""
    if kind == "sequence-classification" and architecture == "roberta":
        output, dense, activation = "classifier.out_proj", "classifier.dense", "tanh"
    elif kind == "sequence-classification" and architecture == "distilbert":
        dense, activation = "pre_classifier", "relu"
    pooler = kind == "sequence-classification" and architecture == "bert"
    prefix = _prefix(architecture, kind)
    fields = _dropout_fields(architecture, kind)
    return HeadForm(named, output, bias, dense, activation, pooler, prefix, fields)  # type: ignore[arg-type]


def _prefix(architecture: str, kind: str) -> str:
    if is_encoder(architecture):
        return MASKED_FAMILIES[architecture].prefix
    if kind == "question-answering" and architecture in _OTHER_PREFIX:
        return "transformer."
    return FAMILIES[architecture].prefix


def _dropout_fields(architecture: str, kind: str) -> tuple[str, ...]:
    if architecture == "distilbert":
        return (_DISTIL_DROPOUT[kind],)
    if kind == "question-answering":
        return ()
    if is_encoder(architecture):
        return ("classifier_dropout", "hidden_dropout_prob")
    return ("classifier_dropout", "hidden_dropout") if kind == "token-classification" else ()


def head_kind(content: Mapping[str, Any]) -> HeadKind | None:
    """The kind of head that a config.json of a built-in family names; None: another class."""
    names = content.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    architecture = content.get("model_type")
    if not isinstance(architecture, str):
        return None
    return next((kind for kind in KINDS if name and head_class(architecture, kind) == name), None)


def head_hf_name(name: str, architecture: str, kind: str) -> str:
    """`backbone.blocks.3.mlp.up_proj.weight` -> `model.layers.3.mlp.up_proj.weight`, `head.output.weight` -> `score.weight`.

    Args:
        name: of a weight of a `HeadModel`.
    """
    form = head_form(architecture, kind)
    if name.startswith("head."):
        _, module, last = name.split(".")
        return f"{form.output if module == 'output' else form.dense}.{last}"
    inner = name.removeprefix("backbone.")
    if is_encoder(architecture):
        return encoder_hf_name(inner, architecture)
    theirs = to_hf_name(inner, architecture)
    return form.prefix + theirs.removeprefix(FAMILIES[architecture].prefix)
