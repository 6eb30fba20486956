"""Cross-entropy straight from hidden states: the logits of a batch never exist all at once.

Rows are taken in chunks whose logits fit the cache; each chunk's loss and its gradients with respect to the hidden
states and the head are computed before the next one. Saves the memory of [tokens, vocabulary] three times over and
several passes through it (the idea of "cut cross-entropy", Wijmans et al. 2024, arXiv 2411.09009).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ownlm.model.int8 import Int8Matrix
from ownlm.training.int8_loss import int8_head_loss

CHUNK_LOGITS = 2**20  # fp32 logits a chunk: 4 MB, about a core's share of cache


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, dtype: torch.dtype
    ) -> Tensor:
        vocabulary = weight_VC.shape[0]
        rows = max(64, CHUNK_LOGITS // vocabulary)
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        head_is_trained = ctx.needs_input_grad[1]
        hidden, weight = hidden_NC.to(dtype), weight_VC.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = torch.zeros_like(weight_VC, dtype=torch.float32) if head_is_trained else None
        for first in range(0, hidden.shape[0], rows):
            part = hidden[first : first + rows]
            chosen = targets_N[first : first + rows, None]
            trained = chosen >= 0
            targets = chosen.clamp(min=0)
            logits = (part @ weight.T).float()
            normalizer = torch.logsumexp(logits, dim=1, keepdim=True)
            total += ((normalizer - logits.gather(1, targets)) * trained).sum()
            if grad_hidden is None:
                continue
            # d loss / d logits = softmax - one-hot, made in place of the logits.
            probabilities = logits.sub_(normalizer).exp_()
            probabilities.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=torch.float32))
            gradient = probabilities.mul_(trained).to(dtype)
            grad_hidden[first : first + rows] = gradient @ weight
            if grad_weight is not None:
                grad_weight += gradient.T @ part
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = (hidden_NC.dtype, weight_VC.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        of_weight = None if grad_weight is None else (grad_weight * grad).to(weight_dtype)
        return grad_hidden.to(hidden_dtype) * grad, of_weight, None, None


def head_loss(
    hidden_NC: Tensor, weight_VC: Tensor | Int8Matrix, targets_N: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Summed cross-entropy in nats of predicting `targets_N` from the hidden states through the head.

    Args:
        hidden_NC: final hidden states, N tokens.
        weight_VC: the head (or the tied embedding); one in int8 is frozen.
        targets_N: token ids; negative ones (-100) are not trained: no loss, no gradient.
        dtype: of the matrix products; sums and softmax are fp32.
    """
    if isinstance(weight_VC, Int8Matrix):
        return int8_head_loss(hidden_NC, weight_VC, targets_N, dtype)
    total: Tensor = _HeadLoss.apply(hidden_NC, weight_VC, targets_N, dtype)
    return total
