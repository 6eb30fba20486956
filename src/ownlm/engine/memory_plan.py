"""What an engine takes of memory: weights, cache, and what a step computes; known before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ownlm.console.errors import Refused
from ownlm.console.output import human_bytes
from ownlm.engine.backend import BLOCK, Backend, KeepsOwnCache
from ownlm.engine.blocks import blocks_for
from ownlm.machine.cpu import available_memory

if TYPE_CHECKING:
    import torch

    from ownlm.model.config import ModelConfig

BYTES_A_WEIGHT = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "int8": 1.0625,
    "int4": 0.5625,
}  # a scale for each 32 weights
CACHE_SHARE = 0.5  # of what weights and a step leave free, when nobody says how much


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part, and what is free for them.

    Args:
        weights, cache, activations: bytes; activations of the largest step.
        available: bytes that are free for all three.
        blocks: of the cache; 0: the backend keeps a cache of its own for each sequence.
        max_context: the window, in tokens.
    """

    weights: int
    cache: int
    activations: int
    available: int
    blocks: int
    max_context: int

    @property
    def short(self) -> bool:
        """Whether the cache holds less than one window."""
        return 0 < self.blocks * BLOCK < self.max_context

    def __str__(self) -> str:
        tokens = self.blocks * BLOCK
        if not self.blocks:
            return (
                f"weights {human_bytes(self.weights)}, keys and values as texts grow; "
                f"{human_bytes(self.available)} free"
            )
        text = (
            f"weights {human_bytes(self.weights)} + cache {human_bytes(self.cache)} for {tokens:,} tokens + "
            f"step {human_bytes(self.activations)} = {human_bytes(self.weights + self.cache + self.activations)}; "
            f"{human_bytes(self.available)} free"
        )
        if self.short:
            text += f"; a text may have {tokens:,} tokens, the window would hold {self.max_context:,}"
        return text


def free_memory(device: torch.device | str) -> int:
    """Bytes that can be allocated on a device now."""
    import torch

    where = torch.device(device)
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    return available_memory()


def plan_for(
    backend: Backend, *, tokens: int, outputs: int, max_sequences: int, cache_memory: int | None
) -> MemoryPlan:
    """The plan of a backend whose weights are in memory already.

    Args:
        tokens, outputs: of the largest step.
        max_sequences, cache_memory: see `plan_memory`.

    Raises:
        Refused: it does not fit; with the numbers.
    """
    weights, available = backend.weight_bytes, free_memory(backend.device) + backend.weight_bytes
    activations = backend.activation_bytes(tokens, outputs)
    if isinstance(backend, KeepsOwnCache):
        return MemoryPlan(weights, 0, activations, available, 0, backend.max_context)
    return plan_memory(
        weights=weights,
        block_bytes=backend.block_bytes,
        activations=activations,
        available=available,
        max_context=backend.max_context,
        max_sequences=max_sequences,
        cache_memory=cache_memory,
    )


def plan_memory(
    *,
    weights: int,
    block_bytes: int,
    activations: int,
    available: int,
    max_context: int,
    max_sequences: int,
    cache_memory: int | None,
) -> MemoryPlan:
    """How many cache blocks there will be.

    Args:
        weights, activations, available: bytes; `available` is for weights, cache and activations together.
        block_bytes: of one cache block.
        max_context: tokens of a window.
        max_sequences: windows that the cache never exceeds when `cache_memory` is not given.
        cache_memory: bytes for the cache; None: half of what is left.

    Raises:
        Refused: it does not fit; with the numbers.
    """
    left = available - weights - activations
    most = max_sequences * blocks_for(max_context)
    budget = max(left, 0) * CACHE_SHARE if cache_memory is None else cache_memory
    blocks = min(int(budget // block_bytes), most)
    plan = MemoryPlan(weights, blocks * block_bytes, activations, available, blocks, max_context)
    if blocks == 0 and cache_memory is not None and left >= block_bytes:
        raise Refused(
            f"{human_bytes(cache_memory)} of cache; {BLOCK} tokens take {human_bytes(block_bytes)}.",
            where="cache_memory",
            do=f"cache_memory={block_bytes * blocks_for(max_context)}, which holds one full window",
        )
    if blocks == 0 or plan.cache > left:
        raise Refused(
            f"the model does not fit into memory: weights {human_bytes(weights)} + cache "
            f"{human_bytes(max(plan.cache, block_bytes))} + step {human_bytes(activations)}; "
            f"{human_bytes(available)} free.",
            where="memory",
            do="a smaller dtype (--dtype bfloat16), a smaller model, or close other programs",
        )
    return plan


def refuse_too_large(config: ModelConfig, dtype: str, device: torch.device | str) -> None:
    """Look at the memory before weights are read.

    Raises:
        Refused: the weights alone, and one block of cache, do not fit; with the numbers.
    """
    plan_memory(
        weights=int(config.num_parameters() * BYTES_A_WEIGHT[dtype]),
        block_bytes=cache_block_bytes(config, dtype),
        activations=0,
        available=free_memory(device),
        max_context=config.max_position_embeddings,
        max_sequences=1,
        cache_memory=cache_block_bytes(config, dtype),
    )


def cache_block_bytes(config: ModelConfig, dtype: str) -> int:
    """Bytes of one cache block: float32 for float32 weights, bfloat16 for all others."""
    return BLOCK * config.key_value_bytes_per_token(4 if dtype == "float32" else 2)
