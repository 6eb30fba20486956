"""Low-rank layers: how they start, what is trained, what dropout draws; beside PEFT in tests/peers/test_peft.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.engine.conftest import random_model
from torch import Tensor, nn

from ownlm.console.errors import UsageError
from ownlm.model.lora import LoraSettings, add_lora, lora_layers, merge_lora, seed_dropout
from ownlm.model.transformer import Transformer

IDS = torch.randint(0, 60, (2, 24), generator=torch.Generator().manual_seed(1))


def with_lora(seed: int = 1, filled: bool = True, **settings: object) -> Transformer:
    """A random model with an adapter; `filled`: one that changes something."""
    model = random_model()
    add_lora(model, LoraSettings(**{"r": 4, "alpha": 8.0, **settings}), seed)
    if filled:
        generator = torch.Generator().manual_seed(5)
        for layer in lora_layers(model).values():
            layer.lora_B.data.copy_(torch.randn(layer.lora_B.shape, generator=generator) * 0.1)
    return model.train()


def gradients(model: Transformer, step: int = 0, **autocast: object) -> dict[str, Tensor]:
    """Gradients of what is trained in a step."""
    model.zero_grad()
    seed_dropout(9, step, 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=bool(autocast)):
        logits = model(IDS)
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_it_starts_as_the_base_and_trains_the_low_rank_matrices_alone() -> None:
    base, model = random_model(), random_model()
    trained = add_lora(model, LoraSettings(r=4), seed=1)
    assert torch.equal(model.train()(IDS), base.train()(IDS))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    layers = lora_layers(model)
    assert names == {f"{name}.lora_{side}" for name in layers for side in "AB"}
    assert len(trained) == len(names) == 2 * 7 * 2  # seven matrices in each of two blocks
    for name, layer in layers.items():
        bound = layer.lora_A.shape[1] ** -0.5
        assert 0.9 * bound < layer.lora_A.abs().max() <= bound, name
        assert layer.lora_A.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not layer.lora_B.any()
    assert set(gradients(model)) == names


def test_each_layer_has_a_stream_of_its_own() -> None:
    every = lora_layers(with_lora(seed=1))
    some = lora_layers(with_lora(seed=1, target_modules=("v_proj", "down_proj")))
    other = lora_layers(with_lora(seed=2))
    assert len(some) == 4
    for name, layer in some.items():
        assert torch.equal(layer.lora_A, every[name].lora_A)
        assert not torch.equal(layer.lora_A, other[name].lora_A)
    assert not torch.equal(every["blocks.0.mlp.up_proj"].lora_A, every["blocks.1.mlp.up_proj"].lora_A)


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 4.0)])
@torch.no_grad()
def test_the_change_is_scaled(rslora: bool, scale: float) -> None:
    model = with_lora(rslora=rslora, target_modules=("1.mlp.down_proj",))
    ((name, layer),) = lora_layers(model).items()
    assert name == "blocks.1.mlp.down_proj"
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(2))
    expected = layer.base(x) + scale * x @ layer.lora_A.T @ layer.lora_B.T
    torch.testing.assert_close(layer(x), expected)
    before = layer.base.weight
    kept = before.clone()
    merge_lora(model)
    torch.testing.assert_close(model.get_submodule(name)(x), expected)
    assert torch.equal(before, kept), "the old tensor may be another model's too"


def test_what_is_dropped_follows_from_seed_step_and_micro_batch() -> None:
    model = with_lora(dropout=0.4)
    first = gradients(model, step=3)
    torch.randn(7)  # what else draws random numbers
    again, other = gradients(model, step=3), gradients(model, step=4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(IDS), model(IDS))


def test_gradient_checkpointing_drops_the_same() -> None:
    model = with_lora(dropout=0.4)
    plain = gradients(model)
    model.gradient_checkpointing = True
    kept = gradients(model)
    for name in plain:
        torch.testing.assert_close(kept[name], plain[name])


def test_under_autocast_the_base_may_be_in_either_dtype() -> None:
    exact = gradients(with_lora())
    for change in (lambda model: model, _base_in_bf16):
        model: Transformer = change(with_lora())
        found = gradients(model, autocast=True)
        for name, gradient in exact.items():
            assert found[name].dtype == torch.float32
            assert (found[name] - gradient).norm() < 0.1 * gradient.norm(), name


def _base_in_bf16(model: Transformer) -> Transformer:
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    return model


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: with_lora(target_modules=("q_prj",)), r'no linear layer "q_prj".*q_proj'),
        (lambda: with_lora(target_modules=("lm_head",)), r'no linear layer "lm_head"'),
        (lambda: with_lora(target_modules=()), "no layers are named"),
        (lambda: add_lora(with_lora(), LoraSettings(), 1), "adapter already"),
        (lambda: LoraSettings(r=0), "lora_r: 0"),
        (lambda: LoraSettings(alpha=0.0), "lora_alpha: 0"),
        (lambda: LoraSettings(dropout=1.0), "lora_dropout: 1"),
    ],
)
def test_what_cannot_be_is_said(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask()
