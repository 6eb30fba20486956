"""Small random masked models with their tokenizers, built and saved by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

transformers = pytest.importorskip("transformers")

WINDOW = 20  # tokens, those around the text included
LINES = [
    "The quick brown fox jumps over the lazy dog.",
    "A river runs to the sea, and the river runs again.",
    "Rain falls on the hills; the fox runs home.",
    "Paris is the capital of France. The sea is wide.",
]
LONG = " ".join(LINES)
BERT, ROBERTA, DISTILBERT = "bert", "roberta", "distilbert"


def wordpiece() -> Any:
    """A lower-casing WordPiece tokenizer as BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    made.train_from_iterator(LINES * 3, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def byte_level() -> Any:
    """A byte-level BPE tokenizer as RoBERTa's, whose mask takes the space before it."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(LINES * 3, trainer)
    made.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", unk_token="<unk>", mask_token=tokenizers.AddedToken("<mask>", lstrip=True, special=True),
    )  # fmt: skip


def build(kind: str, folder: Path) -> None:
    """A random masked model with its tokenizer, saved by transformers; weights far from flat."""
    tokenizer = byte_level() if kind == ROBERTA else wordpiece()
    tokenizer.save_pretrained(folder)
    offset = 2 if kind == ROBERTA else 0
    inner = "hidden_dim" if kind == DISTILBERT else "intermediate_size"
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **{inner: 48},
        max_position_embeddings=WINDOW + offset, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.AutoModelForMaskedLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
