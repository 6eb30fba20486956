"""A small model whose answers are far from equally likely, and the tokenizer of the small corpus."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ownlm.corpus.shards import Corpus
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.model.transformer import Transformer
from tests.engine.conftest import random_model

CONTEXT = 32


@pytest.fixture(scope="session")
def tokenizer(corpus: Path) -> Tokenizer:
    return Corpus.open(corpus).tokenizer


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Transformer:
    torch.set_num_threads(1)
    return random_model(context=CONTEXT, vocab_size=tokenizer.vocab_size)
