"""Parameter, FLOP and memory counters against the tensors and against counting by hand."""

import pytest
import torch
from tests.model.test_attention import VARIANTS, config

from ownlm.console.errors import UsageError
from ownlm.model.config import ModelConfig
from ownlm.model.sizes import SIZES, config_for
from ownlm.model.transformer import Transformer


@pytest.mark.parametrize("changes", [*VARIANTS, {"tie_word_embeddings": False}])
def test_parameter_counts_add_up(changes):
    model = Transformer(config(**changes))
    assert sum(p.numel() for p in model.parameters()) == model.config.num_parameters()


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_what_its_name_says(size):
    described = config_for(size, vocab_size=50_257 if size in ("124M", "350M") else 4_096, context=256)
    counts = described.parameter_counts()
    named = counts["attention"] + counts["mlp"] + (counts["embedding"] if size in ("124M", "350M") else 0)
    wanted = float(size[:-1]) * (1e9 if size.endswith("B") else 1e6)
    assert named == pytest.approx(wanted, rel=0.17)
    assert described.head_dim == 64


@pytest.mark.parametrize("changes", [{}, {"sliding_window": 5}, {"causal": False}])
def test_flops_match_what_torch_counts(changes):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    described = config(num_key_value_heads=4, **changes)
    model, length = Transformer(described), 16
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long))
    full_attention = 4 * described.query_width * described.num_hidden_layers * length
    attended = sum(described._mean_attended(layer, length) for layer in range(described.num_hidden_layers))
    # torch counts every pair of positions; the counter leaves out the pairs that the mask forbids
    ours = (
        described.flops_per_token(length, training=False)
        - 4 * described.query_width * attended
        + full_attention
    )
    assert counter.get_total_flops() == pytest.approx(ours * length, rel=1e-6)


def test_mean_attended_counts_pairs():
    described = config(sliding_window=5)
    pairs = sum(min(i + 1, 5) for i in range(16))
    assert described._mean_attended(0, 16) == pytest.approx(pairs / 16)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"activation": "swish9"}, "activation"),
        ({"head_dim": 7}, "head_dim"),
    ],
)
def test_impossible_configs_are_refused_by_name(changes, word):
    with pytest.raises(UsageError, match=word):
        config(**changes)


def test_set_reaches_every_field_and_refuses_unknown_ones():
    import dataclasses

    described = config()
    for field in dataclasses.fields(ModelConfig):
        assert described.changed({field.name: getattr(described, field.name)}) == described
    assert described.changed({"num_hidden_layers": 3}).num_hidden_layers == 3
    with pytest.raises(UsageError, match="num_hidden_layers"):
        described.changed({"num_hidden_layer": 3})
    with pytest.raises(UsageError, match="num_hidden_layers"):
        described.changed({"num_hidden_layers": "many"})


def test_initial_weights_depend_on_the_seed_alone():
    first, second, third = (Transformer(config()) for _ in range(3))
    first.init_weights(7)
    torch.manual_seed(123)
    second.init_weights(7)
    third.init_weights(8)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters())]
    assert all(same)
    assert not torch.equal(first.embedding.weight, third.embedding.weight)
    logits = first(torch.zeros(1, 3, dtype=torch.long))
    assert logits.std(-1).max() < 0.5  # near uniform at the start
