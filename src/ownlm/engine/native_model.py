"""A model's packed weights behind a handle of the native library: made, filled, given adapters."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ownlm.console.errors import OwnlmError, UsageError
from ownlm.engine.backend import LoraWeights
from ownlm.engine.quantized import Quantized
from ownlm.kernels import inference as native
from ownlm.model.config import ModelConfig
from ownlm.model.layers import rotary_tables
from ownlm.model.transformer import Transformer

_FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_TOP, _NO_MATRIX, _QKV, _OUTPUT, _UP, _DOWN, _BIAS = -1, -1, 0, 1, 2, 3, 4


class NativeModel:
    """Weights as the kernels want them; freed with this object.

    Args:
        config: the model's.
        dtype: of the packed weights: float32, bfloat16, int8, int4.
        context: positions that will be used at most.

    Raises:
        OwnlmError: the library was not built; not enough memory.
    """

    def __init__(self, config: ModelConfig, dtype: str, context: int) -> None:
        library = native.library()
        if library is None:
            raise OwnlmError(
                "the native kernels were not built.", where="native backend", do="--backend torch"
            )
        self.library, self.config, self.context = library, config, context
        self._adapters: set[int] = set()
        rotary = config.positions == "rotary"
        tables = rotary_tables(config, context) if rotary else (torch.empty(0, 0), torch.empty(0, 0))
        self._tables = [
            table[:, : config.head_dim // 2].contiguous() for table in tables
        ]  # the kernels read them
        shape = shape_of(config, dtype, context, *(table.data_ptr() for table in self._tables))
        self.handle: int | None = library.ownlm_inference_create(ctypes.byref(shape))
        if self.handle is None:
            raise OwnlmError(
                f"there is not enough memory for the weights in {dtype}.", where="native backend"
            )

    def __del__(self) -> None:
        if getattr(self, "handle", None) is not None:
            self.library.ownlm_inference_destroy(self.handle)
            self.handle = None

    def fill(self, weights: Iterable[tuple[str, Tensor | Quantized]], threads: int) -> None:
        """Pack (our name, values) of every weight, one after the other; matrices may be quantised already."""
        for name, tensor in weights:
            layer, matrix, first, vector = place_of(self.config, name)
            if isinstance(tensor, Quantized):
                self._pack(layer, matrix, first, tensor, threads)
            elif tensor.ndim == 2 and matrix != _NO_MATRIX:
                self._pack(layer, matrix, first, tensor.cpu(), threads)
            else:
                kept = (
                    tensor[: self.context] if tensor.ndim == 2 else tensor
                )  # learned positions: of the window
                values = kept.float().cpu().contiguous()
                self.library.ownlm_inference_set_vector(
                    self.handle,
                    layer,
                    vector,
                    name.endswith("bias"),
                    first,
                    values.numel(),
                    values.data_ptr(),
                )

    def _pack(self, layer: int, matrix: int, first: int, weight: Tensor | Quantized, threads: int) -> None:
        if isinstance(weight, Quantized):
            source, values = native.SOURCES.index(f"int{weight.bits}"), weight.values.contiguous()
            scales = weight.scales.contiguous()
        else:
            values, scales = weight if weight.dtype in _FLOATS else weight.float(), torch.empty(0)
            source, values = _FLOATS[values.dtype], values.contiguous()
        self.library.ownlm_inference_pack(
            self.handle,
            layer,
            matrix,
            first,
            len(values),
            source,
            values.data_ptr(),
            scales.data_ptr(),
            threads,
        )

    def add_adapter(self, adapter: LoraWeights) -> int:
        """Keep low-rank weights beside the base, in float32; gives their number.

        Raises:
            UsageError: a layer that the model does not have, or matrices of another shape.
        """
        changes = list(adapter.fitting(linear_shapes(self.config)))
        number = int(self.library.ownlm_inference_add_adapter(self.handle))
        for name, down, up in changes:
            layer, matrix, first, _ = place_of(self.config, f"{name}.weight")
            a_RK, b_RO = np.ascontiguousarray(down), np.ascontiguousarray(up.T)
            self.library.ownlm_inference_add_delta(
                self.handle,
                number,
                layer,
                matrix,
                first,
                b_RO.shape[1],
                a_RK.shape[1],
                a_RK.shape[0],
                a_RK.ctypes.data,
                b_RO.ctypes.data,
            )
        self._adapters.add(number)
        return number

    def remove_adapter(self, number: int) -> None:
        """Forget an adapter.

        Raises:
            UsageError: there is no such adapter.
        """
        self.refuse_unknown_adapter(number)
        self._adapters.discard(number)
        self.library.ownlm_inference_remove_adapter(self.handle, number)

    def refuse_unknown_adapter(self, number: int) -> None:
        """Raises UsageError when no adapter has this number."""
        if number not in self._adapters:
            raise UsageError(f"there is no adapter {number}.", where="adapter")


def shape_of(config: ModelConfig, dtype: str, context: int, cosines: int, sines: int) -> native.ModelShape:
    """A config in the library's words; `cosines` and `sines` are addresses of [context, D / 2]."""
    layers = range(config.num_hidden_layers)
    scale = config.attention_scale
    return native.ModelShape(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_width=config.head_dim,
        inner=config.intermediate_size,
        context=context,
        weights=native.WEIGHTS.index(dtype),
        norm=native.NORMS.index(config.norm),
        norm_after=config.norm_placement == "after",
        positions=native.POSITIONS.index(config.positions),
        qk_norm=native.QK_NORMS.index(config.qk_norm),
        gated=config.mlp == "gated",
        activation=native.ACTIVATIONS.index(config.activation),
        tied=config.tie_word_embeddings,
        norm_eps=config.norm_eps,
        attention_scale=config.head_dim**-0.5 if scale is None else scale,
        windows=(ctypes.c_int64 * len(layers))(*(config.window_of(i) or 0 for i in layers)),
        rotary_layers=(ctypes.c_uint8 * len(layers))(*(i not in config.no_rope_layers for i in layers)),
        cosines=cosines,
        sines=sines,
    )


def linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Our names of the linear layers -> [outputs, inputs]."""
    with torch.device("meta"):
        parts = dict(Transformer(config).named_modules())
    return {
        name: (m.out_features, m.in_features) for name, m in parts.items() if isinstance(m, torch.nn.Linear)
    }


def place_of(config: ModelConfig, name: str) -> tuple[int, int, int, int]:
    """(layer, matrix, first output, vector) of a weight, in the numbers of inference/engine.cpp."""
    path = name.split(".")[:-1]
    if path[0] != "blocks":
        matrix, vector = {
            "embedding": (0, 0),
            "lm_head": (1, 0),
            "norm": (_NO_MATRIX, 0),
            "position_embedding": (_NO_MATRIX, 1),
        }[path[0]]
        return _TOP, matrix, 0, vector
    layer, last = int(path[1]), path[-1]
    norms = {"attention_norm": 0, "mlp_norm": 1, "q_norm": 2, "k_norm": 3}
    if last in norms:
        return layer, _NO_MATRIX, 0, norms[last]
    query, key = config.query_width, config.key_value_width
    matrix, first = {
        "qkv_proj": (_QKV, 0),
        "q_proj": (_QKV, 0),
        "k_proj": (_QKV, query),
        "v_proj": (_QKV, query + key),
        "o_proj": (_OUTPUT, 0),
        "gate_up_proj": (_UP, 0),
        "gate_proj": (_UP, 0),
        "up_proj": (_UP, config.intermediate_size if config.mlp == "gated" else 0),
        "down_proj": (_DOWN, 0),
    }[last]
    return layer, matrix, first, _BIAS + matrix
