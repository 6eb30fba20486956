"""Matrix products of the fused path: forwards, and backwards into `parameter.grad`, on the tile unit or in torch.

Shapes: N tokens, C inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ownlm.kernels.tensors import Kernels
from ownlm.kernels.tiles import TILE, Tiles, fits


class Product:
    """A matrix (or several side by side, read as one) and its copy in the dtype of the products.

    y = x Wᵀ (+ b). Gradients are split up to the parameters again. Where the processor has a tile unit and sizes fit
    it, products run there; else in torch.

    Args:
        fill: one matrix alone may be filled up with rows of zeros to whole tiles (a vocabulary of any size).
    """

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        dtype: torch.dtype,
        tiles: Tiles | None,
        fill: bool = False,
    ) -> None:
        self.weights, self.biases = weights, biases
        self.rows = [weight.shape[0] for weight in weights]
        outputs, inputs = sum(self.rows), weights[0].shape[1]
        padded = -(-outputs // TILE) * TILE if fill and tiles is not None and fits(inputs) else outputs
        self.heights = [padded] if len(weights) == 1 else self.rows
        self.tiles = tiles if fits(inputs, *self.heights) else None
        self.copy_OC = torch.zeros(padded, inputs, dtype=dtype)
        self.bias_O = torch.zeros(padded, dtype=dtype) if biases else None
        self.bias_float_O = torch.zeros(padded) if biases else None
        if self.tiles is not None:
            self.for_outputs, self.for_inputs = torch.empty_like(self.copy_OC), torch.empty_like(self.copy_OC)
        self._gradient_OC: Tensor | None = None
        self.memory = [torch.empty(height, inputs) for height in self.heights]
        self.bias_memory = [torch.empty_like(bias) for bias in biases]

    @property
    def width(self) -> int:
        """Columns of the output, filled up."""
        return len(self.copy_OC)

    def refresh(self) -> None:
        """Copy the parameters after an update."""
        torch.cat([weight.detach() for weight in self.weights], out=self.copy_OC[: sum(self.rows)])
        if self.bias_O is not None:
            torch.cat([bias.detach() for bias in self.biases], out=self.bias_O[: sum(self.rows)])
        if self.tiles is not None:
            self.tiles.pack_weight(self.copy_OC, self.for_outputs, self.for_inputs)
            if self.bias_float_O is not None and self.bias_O is not None:
                self.bias_float_O.copy_(self.bias_O)

    def forward(self, x_NC: Tensor, out_NO: Tensor) -> None:
        """out = x Wᵀ (+ b)."""
        if self.tiles is not None and fits(len(x_NC)):
            self.tiles.product(x_NC, self.for_outputs, self.bias_float_O, out_NO)
        elif self.bias_O is None:
            torch.mm(x_NC, self.copy_OC.T, out=out_NO)
        else:
            torch.addmm(self.bias_O, x_NC, self.copy_OC.T, out=out_NO)

    def backward(self, d_NO: Tensor, x_NC: Tensor, d_x_NC: Tensor, kernels: Kernels) -> None:
        """d_x = d W; the weights' gradients dᵀ x are added to the parameters'."""
        if self.tiles is not None and fits(len(x_NC)):
            self.tiles.product(d_NO, self.for_inputs, None, d_x_NC)
            old = [weight.grad for weight in self.weights]
            memory = self._memory(old)
            self.tiles.weight_gradients(d_NO, x_NC, [(m, grad is not None) for m, grad in zip(memory, old)])
            for weight, m in zip(self.weights, memory):
                weight.grad = m[: len(weight)]
        else:
            torch.mm(d_NO, self.copy_OC, out=d_x_NC)
            if self._gradient_OC is None:
                self._gradient_OC = torch.empty_like(self.copy_OC)
            torch.mm(d_NO.T, x_NC, out=self._gradient_OC)
            parts = self._gradient_OC[: sum(self.rows)].split(self.rows)
            for weight, part, m in zip(self.weights, parts, self.memory):
                _add_gradient(weight, part, m[: len(weight)])
        if self.biases:
            for bias, part, m in zip(self.biases, kernels.sum_rows(d_NO).split(self.rows), self.bias_memory):
                _add_gradient(bias, part, m)

    def _memory(self, old: list[Tensor | None]) -> list[Tensor]:
        """Where gradients are: in memory that lasts from step to step; what came from elsewhere is moved there."""
        for memory, gradient in zip(self.memory, old):
            if gradient is not None and gradient.data_ptr() != memory.data_ptr():
                memory.zero_()
                memory[: len(gradient)].copy_(gradient)
        return self.memory


def product(layers: list[Any], dtype: torch.dtype, tiles: Tiles | None) -> Product:
    """The product of layers side by side."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return Product([layer.weight for layer in layers], biases, dtype, tiles)


def _add_gradient(parameter: Tensor, part: Tensor, memory: Tensor) -> None:
    """Add to the gradient; the first one is put into `memory`, which lasts from step to step."""
    if parameter.grad is None:
        parameter.grad = memory.copy_(part)
    else:
        parameter.grad.add_(part)
