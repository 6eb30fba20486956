"""Small random models with task heads and their tokenizers, built and saved by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.peers.masked_models import LINES, byte_level, wordpiece

WINDOW = 24  # tokens, those around the text included
LABELS = ("negative", "neutral", "positive")
NER = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
OPENERS = {
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
}
TEXTS = [*LINES, "the", "", "A fox, a river; the sea?"]


def build(family: str, kind: str, folder: Path, **changes: Any) -> Any:
    """A random model and its tokenizer, saved; weights far from flat."""
    tokenizer = wordpiece() if family in ("bert", "distilbert") else byte_level()
    tokenizer.save_pretrained(folder)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": WINDOW + 2 * (family == "roberta"),
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    if family == "distilbert":
        shape = {
            k: v for k, v in shape.items() if k in ("vocab_size", "max_position_embeddings", "pad_token_id")
        }
        shape |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    if family == "qwen3":
        shape |= {"num_key_value_heads": 2, "head_dim": 16}
    config = transformers.AutoConfig.for_model(family, **shape | changes)
    labels = {"sequence-classification": LABELS, "token-classification": NER}.get(kind)
    if labels and "id2label" not in changes:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: index for index, name in enumerate(labels)}
    torch.manual_seed(5)
    model = OPENERS[kind].from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model
