"""Cross-entropy through a frozen head in int8: a part of the vocabulary at a time is floats.

N tokens, V vocabulary, P tokens of a part of it, C width. Two passes over the vocabulary: the first finds the
normaliser of each token, part by part (Milakov & Gimelshein 2018, arXiv 1805.02867); the second makes the gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ownlm.model.int8 import Int8Matrix, float_parts


class _Int8HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NC: Tensor, values: Tensor, scales: Tensor, targets_N: Tensor, dtype: torch.dtype
    ) -> Tensor:
        hidden, trained_N = hidden_NC.to(dtype), targets_N >= 0
        normalizer_N = torch.full(targets_N.shape, -torch.inf, device=hidden.device)
        chosen_N = torch.zeros_like(normalizer_N)
        for part, weight_PC in float_parts(values, scales, dtype):
            logits_NP = (hidden @ weight_PC.T).float()
            normalizer_N = torch.logaddexp(normalizer_N, logits_NP.logsumexp(dim=1))
            inside_N, places_N = _inside(targets_N, part.start, len(weight_PC))
            chosen_N[inside_N] = logits_NP[inside_N, places_N]
        if ctx.needs_input_grad[0]:
            gradient_NC = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
            for part, weight_PC in float_parts(values, scales, dtype):
                # d loss / d logits = softmax - one-hot.
                slope_NP = ((hidden @ weight_PC.T).float() - normalizer_N[:, None]).exp_()
                inside_N, places_N = _inside(targets_N, part.start, len(weight_PC))
                slope_NP[inside_N, places_N] -= 1
                gradient_NC += slope_NP.mul_(trained_N[:, None]).to(dtype) @ weight_PC
            ctx.save_for_backward(gradient_NC.to(hidden_NC.dtype))
        return ((normalizer_N - chosen_N) * trained_N).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient_NC,) = ctx.saved_tensors
        return gradient_NC * gradient, None, None, None, None


def _inside(targets_N: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """(tokens whose target lies in a part of the vocabulary, its place there)."""
    inside_N = ((targets_N >= first) & (targets_N < first + count)).nonzero()[:, 0]
    return inside_N, targets_N[inside_N] - first


def int8_head_loss(
    hidden_NC: Tensor, head: Int8Matrix, targets_N: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Summed cross-entropy in nats of predicting `targets_N` from the hidden states through the head.

    Args:
        hidden_NC: final hidden states.
        head: [V, C].
        targets_N: token ids; negative ones (-100) are not trained: no loss, no gradient.
        dtype: of the matrix products; sums and softmax are fp32.
    """
    total: Tensor = _Int8HeadLoss.apply(hidden_NC, head.values, head.scales, targets_N, dtype)
    return total
