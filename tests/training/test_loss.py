"""The chunked loss and its gradients against torch's own over whole logits."""

import pytest
import torch
import torch.nn.functional as F

from ownlm.training import loss as room
from ownlm.training.loss import head_loss


@pytest.mark.parametrize("chunk", [1, 10**6, 2**20])
def test_loss_and_gradients_equal_torchs(monkeypatch, chunk):
    monkeypatch.setattr(room, "CHUNK_LOGITS", chunk)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 16, generator=generator, requires_grad=True)
    weight = torch.randn(33, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 33, (200,), generator=generator)
    ours = head_loss(hidden, weight, targets)
    ours_grads = torch.autograd.grad(ours / 7, (hidden, weight))
    theirs = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    theirs_grads = torch.autograd.grad(theirs / 7, (hidden, weight))
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(ours_grads, theirs_grads):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_without_gradients_nothing_is_kept():
    hidden, weight = torch.randn(5, 4), torch.randn(9, 4)
    targets = torch.tensor([0, 1, 2, 8, 3])
    torch.testing.assert_close(
        head_loss(hidden, weight, targets), F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    )
