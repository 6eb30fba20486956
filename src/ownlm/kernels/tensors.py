"""The kernels on tensors: shapes are checked here, pointers are passed on. All tensors are contiguous and on the CPU.

`stored` tensors are bfloat16 or float32, everything else is float32. Shapes: N tokens, C width, H query heads, K key
(and value) heads, D head width, B rows, T tokens a row.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ownlm.kernels.library import library

_STORED = {torch.float32: 0, torch.bfloat16: 1}


@dataclass(frozen=True)
class HeadShape:
    """B rows of T tokens, H query heads and K key heads of width D."""

    batch: int
    length: int
    query: int
    shared: int
    size: int


@dataclass(frozen=True)
class Seen:
    """The keys that each query of some scores [B·H, Q, K] sees: those up to its own place in its row.

    Attributes:
        heads: H.
        first_query, first_key: places in the row that queries and keys begin at.
        first_keys: [B, T] int64, the first key that the query at each place of a row sees, never falling along T;
            None: 0.
    """

    heads: int
    first_query: int
    first_key: int
    first_keys: Tensor | None

    def arguments(self, scores_MQK: Tensor) -> tuple[int | None, ...]:
        """For the library's functions."""
        matrices, queries, keys = scores_MQK.shape
        length = 0 if self.first_keys is None else self.first_keys.shape[1]
        return (
            matrices, self.heads, queries, keys, pointer(self.first_keys), length, self.first_query, self.first_key
        )  # fmt: skip


class Kernels:
    """The library's functions for one way of storing activations.

    Args:
        dtype: bfloat16 or float32.

    Raises:
        RuntimeError: the library was not built.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError("the native kernels were not built")
        self.library: Any = loaded
        self.dtype, self.stored = dtype, _STORED[dtype]
        self.block_rows = int(loaded.ownlm_block_rows())
        self._partials: Tensor = torch.empty(0)

    def use_threads(self) -> None:
        """Share loops among as many threads as torch uses now."""
        self.library.ownlm_set_threads(torch.get_num_threads())

    def _partial(self, rows: int, width: int) -> Tensor:
        """Memory for the sums of each block of rows."""
        needed = -(-rows // self.block_rows) * width
        if self._partials.numel() < needed:
            self._partials = torch.empty(needed)
        return self._partials

    def _add_partials(self, partial: int, rows: int, width: int, total: Tensor) -> None:
        self.library.ownlm_add_partials(partial, -(-rows // self.block_rows), width, total.data_ptr(), 1)

    def norm(
        self,
        x_NC: Tensor,
        branch_NC: Tensor | None,
        norm: Any,
        sum_NC: Tensor,
        out_NC: Tensor,
        stats_2N: Tensor,
    ) -> None:
        """sum = x + branch; out = norm(sum). `stats_2N` keeps mean and 1/deviation for the way back."""
        rows, width = x_NC.shape
        self.library.ownlm_norm_forward(
            self.stored, x_NC.data_ptr(), pointer(branch_NC), norm.weight.data_ptr(), pointer(norm.bias),
            sum_NC.data_ptr(), out_NC.data_ptr(), stats_2N[0].data_ptr(), stats_2N[1].data_ptr(), rows, width, norm.eps,
        )  # fmt: skip

    def norm_backward(
        self,
        d_out_NC: Tensor,
        x_NC: Tensor,
        norm: Any,
        stats_2N: Tensor,
        d_x_NC: Tensor,
        d_stored_NC: Tensor,
        *,
        first: bool,
    ) -> None:
        """Add the norm's gradient to `d_x_NC` (or set it, when it is the first one); weights' gradients are added up."""
        rows, width = x_NC.shape
        has_bias = norm.bias is not None
        partial = self._partial(rows, width * (2 if has_bias else 1))
        for_bias = partial.data_ptr() + 4 * width * -(-rows // self.block_rows)
        self.library.ownlm_norm_backward(
            self.stored, d_out_NC.data_ptr(), x_NC.data_ptr(), norm.weight.data_ptr(),
            stats_2N[0].data_ptr() if has_bias else None, stats_2N[1].data_ptr(), first,
            d_x_NC.data_ptr(), d_stored_NC.data_ptr(), partial.data_ptr(), for_bias if has_bias else None, rows, width,
        )  # fmt: skip
        self._add_partials(partial.data_ptr(), rows, width, gradient_of(norm.weight))
        if has_bias:
            self._add_partials(for_bias, rows, width, gradient_of(norm.bias))

    def heads(
        self,
        qkv: Tensor,
        norms: tuple[Any, Any] | None,
        rotary: tuple[Tensor, Tensor] | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scales: Tensor,
        shape: HeadShape,
    ) -> None:
        """[N, (H + 2K) D] -> q, k, v, each [B, H, T, D]: normalised, turned, keys and values repeated for their group."""
        self.library.ownlm_heads_forward(
            self.stored, qkv.data_ptr(), *_norm_weights(norms), *_tables(rotary), q.data_ptr(), k.data_ptr(),
            v.data_ptr(), scales.data_ptr(), *_sizes(shape), norms[0].eps if norms else 0.0,
        )  # fmt: skip

    def heads_backward(
        self,
        d_q: Tensor,
        d_k: Tensor,
        d_v: Tensor,
        qkv: Tensor,
        norms: tuple[Any, Any] | None,
        rotary: tuple[Tensor, Tensor] | None,
        scales: Tensor,
        d_qkv: Tensor,
        shape: HeadShape,
    ) -> None:
        """The way back of `heads`; the gradients of the head norms' weights are added up."""
        rows = shape.batch * shape.length
        partial = self._partial(rows, 2 * shape.size)
        self.library.ownlm_heads_backward(
            self.stored, d_q.data_ptr(), d_k.data_ptr(), d_v.data_ptr(), qkv.data_ptr(), *_norm_weights(norms),
            *_tables(rotary), scales.data_ptr(), d_qkv.data_ptr(), partial.data_ptr(), *_sizes(shape),
        )  # fmt: skip
        if norms:
            total = torch.zeros(2 * shape.size)
            self._add_partials(partial.data_ptr(), rows, 2 * shape.size, total)
            for norm, part in zip(norms, total.chunk(2)):
                gradient_of(norm.weight).add_(part)

    def swap(self, x: Tensor, out: Tensor, batch: int, first: int, second: int, size: int) -> None:
        """[batch, first, second, size] -> [batch, second, first, size]."""
        self.library.ownlm_swap_heads(self.stored, x.data_ptr(), out.data_ptr(), batch, first, second, size)

    def softmax(self, scores_MQK: Tensor, seen: Seen, scale: float) -> None:
        """Causal softmax in place; what is not seen becomes 0."""
        self.library.ownlm_softmax_forward(
            self.stored, scores_MQK.data_ptr(), *seen.arguments(scores_MQK), scale
        )

    def softmax_backward(self, p_MQK: Tensor, d_p_MQK: Tensor, seen: Seen, scale: float) -> None:
        """The gradient of the scores, in place of `d_p_MQK`."""
        self.library.ownlm_softmax_backward(
            self.stored, p_MQK.data_ptr(), d_p_MQK.data_ptr(), *seen.arguments(p_MQK), scale
        )

    def activation(self, gated: bool, x: Tensor, out: Tensor) -> None:
        """silu(gate) · up of [N, 2I], or GELU (tanh form) of [N, I]; out [N, I]."""
        if gated:
            self.library.ownlm_swiglu_forward(self.stored, x.data_ptr(), out.data_ptr(), *out.shape)
        else:
            self.library.ownlm_gelu_forward(self.stored, x.data_ptr(), out.data_ptr(), x.numel())

    def activation_backward(self, gated: bool, d_out: Tensor, x: Tensor, d_x: Tensor) -> None:
        """The way back of `activation`."""
        if gated:
            self.library.ownlm_swiglu_backward(
                self.stored, d_out.data_ptr(), x.data_ptr(), d_x.data_ptr(), *d_out.shape
            )
        else:
            self.library.ownlm_gelu_backward(
                self.stored, d_out.data_ptr(), x.data_ptr(), d_x.data_ptr(), x.numel()
            )

    def cross_entropy(
        self, logits_NV: Tensor, targets_N: Tensor, losses_N: Tensor, vocabulary: int, factor: float
    ) -> None:
        """Losses in nats; logits become (softmax - one-hot) · factor. Targets below 0 are not trained.

        Rows may be longer than the vocabulary; what is behind it becomes 0.
        """
        rows, stride = logits_NV.shape
        self.library.ownlm_cross_entropy(
            self.stored, logits_NV.data_ptr(), targets_N.data_ptr(), losses_N.data_ptr(), rows, vocabulary, stride,
            factor,
        )  # fmt: skip

    def embedding_backward(self, ids_N: Tensor, d_NC: Tensor, table_VC: Tensor) -> None:
        """table[ids] += d, in the order of the tokens."""
        self.library.ownlm_embedding_backward(
            ids_N.data_ptr(), d_NC.data_ptr(), table_VC.data_ptr(), *d_NC.shape
        )

    def sum_rows(self, d_NC: Tensor) -> Tensor:
        """Sums over the rows, fp32 [C]: a bias's gradient."""
        rows, width = d_NC.shape
        partial, total = self._partial(rows, width), torch.zeros(width)
        self.library.ownlm_sum_rows(self.stored, d_NC.data_ptr(), partial.data_ptr(), rows, width)
        self._add_partials(partial.data_ptr(), rows, width, total)
        return total


class MuonKernels:
    """Momentum and update of N matrices of one shape, fp32 on the CPU, in two calls.

    Args:
        weights, momenta: the matrices; their memory must stay where it is.
        dtype: of the update.
    """

    def __init__(self, weights: list[Tensor], momenta: list[Tensor], dtype: torch.dtype) -> None:
        loaded = library()
        if loaded is None:
            raise RuntimeError("the native kernels were not built")
        self.library: Any = loaded
        self.stored, self.count = _STORED[dtype], weights[0].numel()
        self.weights, self.momenta = weights, momenta
        self.update_NRC = torch.empty(len(weights), *weights[0].shape, dtype=dtype)
        self.partial = torch.empty(len(weights) * -(-self.count // int(loaded.ownlm_piece())))

    def momentum(self, beta: float) -> Tensor:
        """[N, R, C]: momentum with Nesterov's look ahead from the gradients, each divided by its Frobenius norm."""
        gradients = [weight.grad for weight in self.weights]
        self.library.ownlm_set_threads(torch.get_num_threads())
        self.library.ownlm_muon_momentum(
            self.stored, _pointers(gradients), _pointers(self.momenta), self.update_NRC.data_ptr(),
            self.partial.data_ptr(), len(self.weights), self.count, beta,
        )  # fmt: skip
        return self.update_NRC

    def apply(self, update_NRC: Tensor, keep: float, scale: float) -> None:
        """weights = weights · keep - scale · update."""
        self.library.ownlm_muon_apply(
            self.stored,
            _pointers(self.weights),
            update_NRC.data_ptr(),
            len(self.weights),
            self.count,
            keep,
            scale,
        )
        torch.autograd.graph.increment_version(self.weights)


def _pointers(tensors: list[Any]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, zero at first."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def pointer(tensor: Tensor | None) -> int | None:
    """Where a tensor's memory begins."""
    return None if tensor is None else tensor.data_ptr()


def _norm_weights(norms: tuple[Any, Any] | None) -> tuple[int | None, int | None]:
    return (norms[0].weight.data_ptr(), norms[1].weight.data_ptr()) if norms else (None, None)


def _tables(rotary: tuple[Tensor, Tensor] | None) -> tuple[int | None, int | None]:
    return (rotary[0].data_ptr(), rotary[1].data_ptr()) if rotary else (None, None)


def _sizes(shape: HeadShape) -> tuple[int, int, int, int, int]:
    return shape.batch, shape.length, shape.query, shape.shared, shape.size
