"""The engine's arithmetic on our C++ kernels: a whole step in one native call, on any number of threads.

kernels/inference/ holds the kernels. Weights are packed from their source one tensor at a time: peak memory is the
packed model and one tensor.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ownlm.console.errors import OwnlmError, UsageError
from ownlm.engine.admission import checked_context
from ownlm.engine.backend import BLOCK, LoraWeights, Piece
from ownlm.engine.native_model import NativeModel
from ownlm.engine.quantized import Quantized, config_of, stored_weights
from ownlm.kernels import inference as native
from ownlm.model.config import ModelConfig
from ownlm.model.transformer import Transformer

Ints = npt.NDArray[np.int32]


def available() -> bool:
    """Whether the kernels were built for this machine."""
    return native.library() is not None


class NativeBackend:
    """A model in packed weights, and the paged cache of the running sequences.

    Args:
        config: the model's.
        weights: (our name, values) of every weight, in any order; matrices in floats, or quantised as `dtype` says.
        dtype: of the packed weights: float32, bfloat16, int8, int4.
        max_context: tokens of prompt and answer together at most; None: what the model was made for.
        threads: None: as many as torch uses.

    Raises:
        UsageError: a context that the model was not made for. OwnlmError: not enough memory.
    """

    name = "native"
    device: torch.device | str = torch.device("cpu")
    promises = (
        "Bit-equal for a token after the same tokens: alone or in any batch, for any chunking of the prompt, with a "
        "cached prefix or not, on any number of threads; not on another instruction set, dtype or build."
    )

    def __init__(
        self,
        config: ModelConfig,
        weights: Iterable[tuple[str, Tensor | Quantized]],
        dtype: str,
        *,
        max_context: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.config, self.dtype = config, dtype
        self.max_context = checked_context(config, max_context)
        self.vocab_size, self.hidden_size = config.vocab_size, config.hidden_size
        self._threads, self._blocks = threads, 0
        self._model = NativeModel(config, dtype, self.max_context)
        self._library, self._handle = self._model.library, self._model.handle
        self._model.fill(weights, self.threads)
        self.block_bytes = int(self._library.ownlm_inference_block_bytes(self._handle))
        self.weight_bytes = int(self._library.ownlm_inference_weight_bytes(self._handle))

    @classmethod
    def of(
        cls, model: Transformer, dtype: str, *, max_context: int | None = None, threads: int | None = None
    ) -> NativeBackend:
        """A backend with the weights of a model in memory, which stays as it is."""
        weights = ((name, p.detach()) for name, p in model.named_parameters())
        return cls(model.config, weights, dtype, max_context=max_context, threads=threads)

    @classmethod
    def open(
        cls, folder: Path, dtype: str, *, max_context: int | None = None, threads: int | None = None
    ) -> NativeBackend:
        """A backend with the weights of a folder, read and packed one after the other.

        Raises:
            UsageError: no model there, or its weights are quantised otherwise than `dtype` says. Refused: damaged.
        """
        config, bits = config_of(folder)
        if bits and dtype != f"int{bits}":
            raise UsageError(
                f"the weights are quantised to int{bits}; {dtype} was asked for.",
                where=folder,
                do=f"--dtype int{bits}",
            )
        return cls(
            config, stored_weights(folder, in_turn=True), dtype, max_context=max_context, threads=threads
        )

    @property
    def threads(self) -> int:
        """Threads of a step."""
        return self._threads or torch.get_num_threads()

    def activation_bytes(self, tokens: int, outputs: int) -> int:
        """Memory that a step of so many tokens takes beside weights and cache, with so many results wanted."""
        c = self.config
        inner = c.intermediate_size * (2 if c.mlp == "gated" else 1)
        qkv = c.query_width + 2 * c.key_value_width
        row = 4 * (2 * c.hidden_size + qkv + c.query_width + inner)
        widest = max(c.hidden_size, c.query_width, c.intermediate_size)
        return tokens * (row + 8 * widest) + outputs * 4 * (c.hidden_size + c.vocab_size)

    def reserve(self, blocks: int) -> None:
        """Allocate the cache anew, all zero."""
        if not self._library.ownlm_inference_reserve(self._handle, blocks):
            raise OwnlmError(
                f"there is not enough memory for {blocks:,} cache blocks of {self.block_bytes:,} bytes.",
                where="native backend",
                do="a smaller cache_memory or max_context",
            )
        self._blocks = blocks

    def compute(self, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
        """Logits [O, V] of each piece."""
        return self._step(pieces, self.vocab_size, hidden=False)

    def hidden(self, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
        """Final hidden states [O, C] of each piece, after the last norm."""
        return self._step(pieces, self.hidden_size, hidden=True)

    def _step(self, pieces: Sequence[Piece], width: int, *, hidden: bool) -> list[npt.NDArray[np.float32]]:
        if not pieces:
            return []
        ids = np.concatenate([piece.ids for piece in pieces], dtype=np.int32)
        positions = np.concatenate([np.arange(p.start, p.start + len(p.ids)) for p in pieces], dtype=np.int32)
        blocks = np.concatenate([piece.blocks for piece in pieces], dtype=np.int32)
        self._check(pieces, ids, positions, blocks)
        first_rows = _firsts(len(p.ids) for p in pieces)
        first_blocks = _firsts(len(p.blocks) for p in pieces)
        first_outputs = _firsts(len(p.outputs) for p in pieces)
        outputs = np.concatenate([p.outputs + at for p, at in zip(pieces, first_rows)], dtype=np.int32)
        adapters = np.array([piece.adapter for piece in pieces], np.int32)
        out = np.empty((len(outputs), width), np.float32)
        call = native.StepCall(
            rows=len(ids),
            pieces=len(pieces),
            ids=ids.ctypes.data,
            positions=positions.ctypes.data,
            first_rows=first_rows.ctypes.data,
            blocks=blocks.ctypes.data,
            first_blocks=first_blocks.ctypes.data,
            outputs=outputs.ctypes.data,
            first_outputs=first_outputs.ctypes.data,
            adapters=adapters.ctypes.data,
            hidden=hidden,
            out=out.ctypes.data,
        )
        if not self._library.ownlm_inference_step(self._handle, ctypes.byref(call), self.threads):
            raise OwnlmError(
                f"there is not enough memory for a step of {len(ids):,} tokens.",
                where="native backend",
                do="fewer step_tokens",
            )
        return [out[begin:end] for begin, end in itertools.pairwise(first_outputs)]

    def _check(self, pieces: Sequence[Piece], ids: Ints, positions: Ints, blocks: Ints) -> None:
        """The kernels read and write where these numbers point to."""
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError(f"token ids from {ids.min()} to {ids.max()}; the model has {self.vocab_size}")
        if positions.min() < 0 or positions.max() >= self.max_context:
            raise ValueError(f"position {positions.max()} in a context of {self.max_context}")
        if blocks.min() < 0 or blocks.max() >= self._blocks:
            raise ValueError(f"cache block {blocks.max()} of {self._blocks}")
        for piece in pieces:
            if piece.adapter:
                self._model.refuse_unknown_adapter(piece.adapter)
            if len(piece.blocks) * BLOCK < piece.start + len(piece.ids):
                raise ValueError(f"{len(piece.blocks)} blocks for {piece.start + len(piece.ids)} tokens")
            if len(piece.outputs) and not 0 <= piece.outputs[0] <= piece.outputs[-1] < len(piece.ids):
                raise ValueError(f"results {piece.outputs} of {len(piece.ids)} tokens")

    def copy_block(self, source: int, target: int) -> None:
        """Copy the keys and values of a cache block."""
        if not (0 <= source < self._blocks and 0 <= target < self._blocks):
            raise ValueError(f"cache blocks {source} and {target} of {self._blocks}")
        self._library.ownlm_inference_copy_block(self._handle, source, target)

    def release(self, sequence: int) -> None:
        """The cache is all in blocks."""

    def add_adapter(self, adapter: LoraWeights) -> int:
        """Keep low-rank weights beside the base, unmerged; gives the number for `Piece.adapter`.

        Raises:
            UsageError: a layer that the model does not have, or matrices of another shape.
        """
        return self._model.add_adapter(adapter)

    def remove_adapter(self, number: int) -> None:
        """Forget an adapter; no sequence may still use it.

        Raises:
            UsageError: there is no such adapter.
        """
        self._model.remove_adapter(number)


def _firsts(counts: Iterable[int]) -> Ints:
    """Where each of several runs begins, and where the last ends."""
    return np.cumsum([0, *counts], dtype=np.int32)
