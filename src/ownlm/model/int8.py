"""Frozen matrices in whole numbers of 8 bits, which gradients flow through to what is trained beside them.

A matrix W [O, K] is int8 values [O, K] and a float16 scale for each 32 of them, [O, ceil(K / 32)], as
`ownlm.engine.quantized` makes them. It is turned into floats a few rows at a time, forward and backward, and only the
whole numbers are kept between the two: the memory of Dettmers et al. 2023 (arXiv 2305.14314) with plain int8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

GROUP = 32
FLOATS_AT_ONCE = 2**20  # 4 MB in float32, about a core's share of cache


def floats(values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The float matrix [rows, K] that values [rows, K] and scales [rows, ceil(K / 32)] stand for."""
    spread = scales.float().repeat_interleave(GROUP, dim=-1)[..., : values.shape[-1]]
    return (values.float() * spread).to(dtype)


def float_parts(values: Tensor, scales: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """(which rows, those rows in floats), one part of the matrix after the other."""
    rows = max(1, FLOATS_AT_ONCE // values.shape[1])
    for first in range(0, len(values), rows):
        part = slice(first, first + rows)
        yield part, floats(values[part], scales[part], dtype)


class _Product(torch.autograd.Function):
    """x Wᵀ for x [N, K]; the gradient goes to x alone."""

    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, values: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(values, scales)
        y_NO = x_NK.new_empty(len(x_NK), len(values))
        for part, weight in float_parts(values, scales, x_NK.dtype):
            y_NO[:, part] = x_NK @ weight.T
        return y_NO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y_NO: Tensor) -> tuple[Tensor, None, None]:
        values, scales = ctx.saved_tensors
        d_x_NK = d_y_NO.new_zeros(len(d_y_NO), values.shape[1], dtype=torch.float32)
        for part, weight in float_parts(values, scales, d_y_NO.dtype):
            d_x_NK += d_y_NO[:, part] @ weight
        return d_x_NK.to(d_y_NO.dtype), None, None


class Int8Matrix(nn.Module):
    """A frozen matrix [O, K].

    Args:
        values: int8 [O, K].
        scales: float16 [O, ceil(K / 32)].
    """

    values: Tensor
    scales: Tensor

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = values.shape
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)

    def floats(self) -> Tensor:
        """float32 [O, K]."""
        return floats(self.values, self.scales, torch.float32)

    def product(self, x: Tensor) -> Tensor:
        """x Wᵀ: [..., K] -> [..., O], in autocast's dtype where it is on, else in that of x."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        y_NO: Tensor = _Product.apply(x.to(dtype).flatten(0, -2), self.values, self.scales)
        return y_NO.unflatten(0, x.shape[:-1])


class Int8Linear(Int8Matrix):
    """A frozen linear layer [K] -> [O].

    Args:
        values, scales: see `Int8Matrix`.
        bias: [O] in floats, or None.
    """

    bias: Tensor | None

    def __init__(self, values: Tensor, scales: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(values, scales)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., O]."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Int8Embedding(Int8Matrix):
    """A frozen table [V, C]; a tied head is its `product`.

    Args:
        values, scales: see `Int8Matrix`.
        dtype: of the rows that it gives.
    """

    def __init__(self, values: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(values, scales)
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., C]."""
        return floats(self.values[ids], self.scales[ids], self.dtype)
