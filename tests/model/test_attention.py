"""Attention against its formula, masks, windows and the cache."""

import math

import pytest
import torch

from ownlm.model.attention import Attention, window_mask
from ownlm.model.cache import KeyValueCache
from ownlm.model.config import ModelConfig
from ownlm.model.transformer import Transformer

torch.set_num_threads(1)


def config(**changes) -> ModelConfig:
    fields = dict(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, intermediate_size=48, max_position_embeddings=64,
    )  # fmt: skip
    return ModelConfig(**(fields | changes))


def filled(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.ndim == 1))
    return model.eval()


def test_the_textbook_formula_is_a_special_case():
    """z_i = Σ_j softmax_j(x_iᵀ x_j) x_j."""
    width = 8
    plain = config(
        hidden_size=width, num_attention_heads=1, num_key_value_heads=1, head_dim=width,
        positions="none", qk_norm="none", attention_scale=1.0, causal=False,
    )  # fmt: skip
    attention = Attention(plain, layer=0)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        torch.nn.init.eye_(projection.weight)
    x = torch.randn(1, 5, width, generator=torch.Generator().manual_seed(1))
    z = attention(x, None, None)[0]
    for i in range(5):
        weights = [math.exp(float(x[0, i] @ x[0, j])) for j in range(5)]
        expected = sum(w / sum(weights) * x[0, j] for j, w in enumerate(weights))
        torch.testing.assert_close(z[i], expected, atol=1e-5, rtol=1e-5)


VARIANTS = [
    {},
    {"num_key_value_heads": 4, "qk_norm": "full"},
    {"qk_norm": "none", "norm": "layer", "positions": "learned", "mlp": "plain", "activation": "gelu_tanh",
     "attention_bias": True, "attention_output_bias": True, "mlp_bias": True, "fused_qkv": True},
    {"norm_placement": "after", "no_rope_layers": (1,)},
    {"sliding_window": 5, "window_layers": (0,)},
    {"sliding_window": 3},
]  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_token_sees_nothing_after_it(changes):
    model = filled(Transformer(config(**changes)))
    ids = torch.randint(0, 97, (1, 20), generator=torch.Generator().manual_seed(2))
    other = ids.clone()
    other[0, 12] = (other[0, 12] + 1) % 97
    before, after = model(ids), model(other)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12], after[:, 12])


@pytest.mark.parametrize("changes", VARIANTS)
def test_cached_equals_uncached_in_pieces_of_any_size(changes):
    model = filled(Transformer(config(**changes)))
    ids = torch.randint(0, 97, (2, 23), generator=torch.Generator().manual_seed(3))
    whole = model(ids)
    cache = KeyValueCache(model.config, 2, 32)
    pieces, start = [], 0
    for length in (7, 1, 1, 9, 5):
        positions = torch.arange(start, start + length).expand(2, -1)
        pieces.append(model(ids[:, start : start + length], positions_BT=positions, cache=cache))
        start += length
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=2e-5, rtol=1e-4)


def test_rows_of_different_length_do_not_touch_each_other():
    model = filled(Transformer(config()))
    ids = torch.randint(0, 97, (2, 9), generator=torch.Generator().manual_seed(4))
    cache = KeyValueCache(model.config, 2, 16)
    positions = torch.arange(9).expand(2, -1).clone()
    positions[1, 4:] = cache.max_length  # the second row has four tokens, the rest is padding
    ragged = model(ids, positions_BT=positions, cache=cache)
    torch.testing.assert_close(ragged[1, :4], model(ids[1:, :4])[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ragged[0], model(ids[:1])[0], atol=1e-5, rtol=1e-4)
    step = model(ids[:, :1], positions_BT=torch.tensor([[9], [4]]), cache=cache)
    longer = torch.cat((ids[1:, :4], ids[1:, :1]), dim=1)
    torch.testing.assert_close(step[1], model(longer)[0, -1:], atol=1e-5, rtol=1e-4)


def test_a_window_sees_exactly_its_tokens():
    assert window_mask(5, 2, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1],
    ]  # fmt: skip
