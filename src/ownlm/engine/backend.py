"""What the engine asks of whatever computes: pieces of sequences in, logits or hidden states out.

T tokens of a piece, O of them whose results are wanted, V vocabulary, C width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import UsageError

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]

BLOCK = 64  # tokens of a cache block; attention is reduced block by block in this unit, left to right


@dataclass(frozen=True, slots=True)
class Piece:
    """Some tokens of one sequence that are computed in one step.

    Args:
        sequence: key of the sequence, for backends that keep a cache of their own.
        ids: int32 [T].
        start: position of ids[0]; everything before it is in the cache.
        blocks: int32 [ceil((start + T) / 64)] cache blocks of the sequence, in order.
        outputs: int32 [O] ascending indices into ids whose results are wanted; may be empty.
        adapter: 0: none; else a number that `add_adapter` gave.
    """

    sequence: int
    ids: npt.NDArray[np.int32]
    start: int
    blocks: npt.NDArray[np.int32]
    outputs: npt.NDArray[np.int32]
    adapter: int = 0


@dataclass(frozen=True)
class LoraWeights:
    """Low-rank changes of linear layers: y = x Wᵀ + scale · (x Aᵀ) Bᵀ (Hu et al. 2021, arXiv 2106.09685, eq. 3).

    Args:
        matrices: name of the layer in our `Transformer` ("blocks.0.attention.q_proj") -> float32 A [r, K], B [O, r].
        scale: alpha / r.
    """

    matrices: Mapping[str, tuple[Floats, Floats]]
    scale: float

    def fitting(self, shapes: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, Floats, Floats]]:
        """(layer, A [r, K], scale · B [O, r]) of each change, in float32.

        Args:
            shapes: our names of the model's linear layers -> [O, K].

        Raises:
            UsageError: a layer that the model does not have, or matrices of another shape.
        """
        for name, (down, up) in self.matrices.items():
            wanted = shapes.get(name)
            if wanted is None:
                raise UsageError(f'the model has no linear layer "{name}".', where="adapter")
            if (up.shape[0], down.shape[1]) != wanted or up.shape[1] != down.shape[0]:
                raise UsageError(
                    f"{name}: A {list(down.shape)} and B {list(up.shape)} for a layer {list(wanted)}.",
                    where="adapter",
                )
            yield name, np.asarray(down, np.float32), np.asarray(up, np.float32) * np.float32(self.scale)


class Backend(Protocol):
    """The arithmetic behind the engine, and the memory of the cache.

    Attributes:
        name: "native", "torch" or "transformers".
        dtype: of the weights: "float32", "bfloat16", "int8", "int4".
        vocab_size: V; token ids lie below. hidden_size: C.
        max_context: tokens of prompt and answer together at most.
        block_bytes: memory of one cache block, all layers, keys and values.
        weight_bytes: memory of the weights.
        promises: one sentence: what stays bit-equal and what does not.
    """

    name: str
    dtype: str
    device: torch.device | str
    vocab_size: int
    hidden_size: int
    max_context: int
    block_bytes: int
    weight_bytes: int
    promises: str

    def activation_bytes(self, tokens: int, outputs: int) -> int:
        """Memory that a step of so many tokens takes beside weights and cache, with so many results wanted."""

    def reserve(self, blocks: int) -> None:
        """Allocate the cache anew; done once by the engine, before the first step."""

    def compute(self, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
        """Logits [O, V] of each piece; the pieces are of different sequences, in any mix of lengths."""

    def hidden(self, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
        """Final hidden states [O, C] of each piece, after the last norm."""

    def copy_block(self, source: int, target: int) -> None:
        """Copy the keys and values of a cache block."""

    def release(self, sequence: int) -> None:
        """The sequence has ended or gives its cache back; nothing to do where blocks hold all of it."""

    def add_adapter(self, adapter: LoraWeights) -> int:
        """Keep low-rank weights beside the base, unmerged; gives the number for `Piece.adapter`."""

    def remove_adapter(self, number: int) -> None:
        """Forget an adapter; no sequence may still use it."""


@runtime_checkable
class KeepsOwnCache(Protocol):
    """A backend that remembers sequences by itself, not in blocks (`block_bytes` 0, empty `Piece.blocks`).

    A prompt then comes in one piece, prefixes are not shared, and nothing is preempted.
    """

    def longest(self, prompt_tokens: int) -> int:
        """Tokens of prompt and answer together at most, for a prompt of this length."""
