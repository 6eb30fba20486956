"""A small model with random weights that are not near "every token equally likely"."""

from __future__ import annotations

import pytest
import torch

from ownlm.model.config import ModelConfig
from ownlm.model.transformer import Transformer


@pytest.fixture(scope="session")
def model() -> Transformer:
    torch.set_num_threads(1)
    return random_model()


def random_model(context: int = 256, vocab_size: int = 60, **changes: object) -> Transformer:
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        intermediate_size=200,
        max_position_embeddings=context,
        tie_word_embeddings=False,
    ).changed(changes)
    made = Transformer(config)
    made.init_weights(1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in made.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight", "embedding.weight")):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return made.eval()
