"""The loss through a head in int8 against torch's own over the floats that it stands for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ownlm.engine.quantized import quantize
from ownlm.model import int8
from ownlm.model.int8 import Int8Linear
from ownlm.training.loss import head_loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("floats_at_once", [7 * 40, 2**20])
def test_loss_and_gradients_equal_torchs(
    monkeypatch: pytest.MonkeyPatch, floats_at_once: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(int8, "FLOATS_AT_ONCE", floats_at_once)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 40, generator=generator, requires_grad=True)
    stored = quantize(torch.randn(33, 40, generator=generator), 8)
    head = Int8Linear(stored.values, stored.scales)
    targets = torch.randint(0, 33, (50,), generator=generator)
    targets[::7] = -100
    ours = head_loss(hidden, head, targets, dtype)
    (gradient,) = torch.autograd.grad(ours / 7, hidden)
    logits = hidden.to(dtype) @ head.floats().to(dtype).T
    theirs = F.cross_entropy(logits.float(), targets, reduction="sum")
    (expected,) = torch.autograd.grad(theirs / 7, hidden)
    off = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours, theirs, rtol=off, atol=off)
    torch.testing.assert_close(gradient, expected, rtol=off, atol=off)
    assert not gradient[::7].any()


def test_a_frozen_head_gets_no_gradient_and_no_memory_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    zeros = torch.zeros_like

    def seen(tensor: torch.Tensor, **options: object) -> torch.Tensor:
        made.append(tuple(tensor.shape))
        return zeros(tensor, **options)

    hidden, weight = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4)
    targets = torch.tensor([0, 1, 2, 8, 3, -100])
    monkeypatch.setattr(torch, "zeros_like", seen)
    (gradient,) = torch.autograd.grad(head_loss(hidden, weight, targets), hidden)
    monkeypatch.undo()
    expected = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, targets, reduction="sum"), hidden)[0]
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-5)
    assert (9, 4) not in made
