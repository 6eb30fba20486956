"""Products, attention and Newton–Schulz on the processor's tile unit (AMX): bfloat16 in, sums in fp32.

Shapes: N tokens, C inputs and O outputs of a matrix. N, C, O, T and D must be multiples of 32 (`fits`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ownlm.kernels.library import library
from ownlm.kernels.tensors import HeadShape, pointer

TILE = 32


def fits(*sizes: int) -> bool:
    """Whether all sizes can be cut into tiles."""
    return all(size % TILE == 0 for size in sizes)


class Tiles:
    """The library's functions of the tile unit, on contiguous tensors."""

    def __init__(self) -> None:
        loaded = library()
        assert loaded is not None
        self.library: Any = loaded
        self._packed: Tensor = torch.empty(0, dtype=torch.bfloat16)

    def pack_weight(self, weight_OC: Tensor, for_outputs: Tensor, for_inputs: Tensor) -> None:
        """Lay a matrix out for x Wᵀ (`for_outputs`) and for d W (`for_inputs`)."""
        outputs, inputs = weight_OC.shape
        self.library.ownlm_amx_pack_transposed(
            weight_OC.data_ptr(), inputs, for_outputs.data_ptr(), outputs, inputs
        )
        self.library.ownlm_amx_pack(weight_OC.data_ptr(), inputs, for_inputs.data_ptr(), inputs, outputs)

    def product(self, x_NC: Tensor, packed: Tensor, bias_O: Tensor | None, out_NO: Tensor) -> None:
        """out = x Wᵀ + b or d W, whatever was packed; `out_NO` may be part of wider rows."""
        rows, depth = x_NC.shape
        bias = None if bias_O is None else bias_O.data_ptr()
        self.library.ownlm_amx_product(
            x_NC.data_ptr(), x_NC.stride(0), packed.data_ptr(), bias, out_NO.data_ptr(), out_NO.stride(0), rows, depth,
            out_NO.shape[1],
        )  # fmt: skip

    def weight_gradients(self, d_NO: Tensor, x_NC: Tensor, parts: list[tuple[Tensor, bool]]) -> None:
        """Gradients dᵀ x of matrices side by side: for each (fp32 memory [O, C], whether to add) in turn."""
        tokens, width = x_NC.shape
        if self._packed.numel() < x_NC.numel():
            self._packed = torch.empty(x_NC.numel(), dtype=torch.bfloat16)
        self.library.ownlm_amx_pack(x_NC.data_ptr(), width, self._packed.data_ptr(), width, tokens)
        first = 0
        for memory, add in parts:
            self.library.ownlm_amx_weight_gradient(
                d_NO.data_ptr() + 2 * first, d_NO.stride(0), self._packed.data_ptr(), memory.data_ptr(), tokens,
                len(memory), width, add,
            )  # fmt: skip
            first += len(memory)

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mixed: Tensor,
        normalizers: Tensor,
        shape: HeadShape,
        first_keys: Tensor | None,
        scale: float,
    ) -> None:
        """Causal attention of [B, H, T, D] into [B, T, H·D]; `normalizers` [B·H, T] are kept for the way back.

        Args:
            first_keys: as in `Seen`.
        """
        self.library.ownlm_amx_attention_forward(
            q.data_ptr(), k.data_ptr(), v.data_ptr(), mixed.data_ptr(), normalizers.data_ptr(), shape.batch,
            shape.query, shape.length, shape.size, pointer(first_keys), scale,
        )  # fmt: skip

    def attention_backward(
        self, q: Tensor, k: Tensor, v: Tensor, d_mixed: Tensor, normalizers: Tensor, d_q: Tensor, d_k: Tensor,
        d_v: Tensor, shape: HeadShape, first_keys: Tensor | None, scale: float,
    ) -> None:  # fmt: skip
        """The way back of `attention`."""
        self.library.ownlm_amx_attention_backward(
            q.data_ptr(), k.data_ptr(), v.data_ptr(), d_mixed.data_ptr(), normalizers.data_ptr(), d_q.data_ptr(),
            d_k.data_ptr(), d_v.data_ptr(), shape.batch, shape.query, shape.length, shape.size, pointer(first_keys),
            scale,
        )  # fmt: skip

    def newton_schulz(self, x_NRC: Tensor, coefficients_I3: Tensor) -> None:
        """In place on N matrices of norm one, R <= C; a row of coefficients an iteration."""
        self.library.ownlm_amx_newton_schulz(
            x_NRC.data_ptr(), *x_NRC.shape, coefficients_I3.data_ptr(), len(coefficients_I3)
        )
