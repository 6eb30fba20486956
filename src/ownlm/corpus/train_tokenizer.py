"""Make a vocabulary from a sample of the corpus: byte-level BPE by default, characters or words on request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.fast_bpe import QWEN2_PATTERN
from ownlm.corpus.tokenizer import END_OF_TEXT, PAD, SPECIAL_TOKENS, Tokenizer, without_surrogates

Kind = Literal["bpe", "char", "word"]

SAMPLE_BYTES = 40_000_000  # more changes English merges at the third digit only, and costs time


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int | None, kind: Kind = "bpe", corpus_bytes: int
) -> Tokenizer:
    """A tokenizer for these texts.

    Args:
        texts: the sample, chosen by the caller; reading stops at the cap of `Sample`.
        vocab_size: number of ids, the 16 special ones and the 256 bytes included; None: chosen from the corpus.
        kind: 'bpe' byte-level BPE; 'char' characters; 'word' words; the last two fall back to bytes.
        corpus_bytes: UTF-8 bytes of the whole corpus.

    Raises:
        Refused: the sample is empty.
        UsageError: a vocabulary too small for the bytes.
    """
    sample = Sample(texts)
    spec = _train_bpe(sample, vocab_size or 4096)
    return Tokenizer(spec, config())


class Sample:
    def __init__(self, texts: Iterable[str]) -> None:
        self.texts, self.bytes = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            text = without_surrogates(text)
            self.bytes += len(text.encode())
            yield text
            if self.bytes >= SAMPLE_BYTES:
                return


def config() -> dict[str, Any]:
    """`tokenizer_config.json`: with this class transformers opens `tokenizer.json` as it is (5.23 rebuilds others)."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "model_max_length": 1_000_000_000_000,
        "clean_up_tokenization_spaces": False,
    }


def _train_bpe(sample: Iterable[str], vocab_size: int) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    return backend.to_str(pretty=True)
