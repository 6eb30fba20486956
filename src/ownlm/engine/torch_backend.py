"""The engine's arithmetic on torch: prefill, decode in tiles of rows, scoring. Any device.

B rows of a tile, T tokens, C width, V vocabulary.

What is kept on a CPU in fp32 (tests/engine/test_batching.py): the logits of a sequence do not depend on the
sequences beside it. Matrix kernels choose their order of addition by the number of rows, so decoding always
multiplies whole tiles of the same number of rows, empty ones included; attention reads whole blocks of slots;
a prompt is computed alone, in chunks that start at the same places. What torch does not promise, here or on a
GPU: the same bits in another tile size, thread count, dtype, build or machine, or that a token's logits are
bit-equal when it is part of a prompt and when it was generated.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ownlm.console.errors import UsageError
from ownlm.machine.cpu import bf16_pays
from ownlm.model.cache import KeyValueCache
from ownlm.model.transformer import Transformer

PREFILL_CHUNK = 512  # prompt tokens computed at once: bounds the mask and the activations of a long prompt
CPU_TILE, GPU_TILE = 4, 32  # 4 rows cost 1.2 to 1.4 times one row on two cores, 16 cost 2 to 3 times
FIRST_SLOTS = 255  # of a new tile (with the padding slot: four blocks); doubled when a row gets longer
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Tile:
    """Rows that are decoded together, and their cache. A row is free when its index is in `free`."""

    cache: KeyValueCache
    free: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """The place of one sequence."""

    tile: Tile
    index: int


@dataclass(frozen=True)
class Prefilled:
    """The keys and values of a prompt of `length` tokens, and the logits [V] of what follows it."""

    cache: KeyValueCache
    length: int
    logits: npt.NDArray[np.float32]


class TorchBackend:
    """A model on one device, with the caches of the running sequences.

    Args:
        model: used as it is when dtype and device are already right, else copied.
        dtype: "auto" (the model's own; bf16 weights compute in fp32 on a CPU without bf16 arithmetic),
            "float32" or "bfloat16".
        device: None: where the model is.
        max_context: tokens of prompt and answer together at most; None: what the model was made for.
        tile_rows: rows decoded together; None: 4 on a CPU, 32 elsewhere.
    """

    def __init__(
        self,
        model: Transformer,
        dtype: str,
        device: str | None,
        max_context: int | None,
        tile_rows: int | None,
    ) -> None:
        weight = model.embedding.weight
        self.device = weight.device if device is None else torch.device(device)
        self.dtype = chosen_dtype(dtype, weight.dtype, self.device)
        if weight.dtype != self.dtype or weight.device != self.device:
            model = copy.deepcopy(model).to(device=self.device, dtype=self.dtype)
        self.model = model
        self.config = model.config
        made_for = self.config.max_position_embeddings
        if max_context is not None and not 1 < max_context <= made_for:
            raise UsageError(
                f"a context of {max_context:,} tokens; this model was made for {made_for:,}.",
                where="max_context",
                do=f"max_context between 2 and {made_for}",
            )
        self.max_context = max_context or made_for
        self.tile_rows = tile_rows or (CPU_TILE if self.device.type == "cpu" else GPU_TILE)
        self.tiles: list[Tile] = []

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return self.config.vocab_size

    def longest(self, prompt_tokens: int) -> int:
        """Prompt and answer share the context window, whatever the prompt."""
        return self.max_context

    @torch.inference_mode()
    def prefill(self, ids: npt.NDArray[np.int64]) -> Prefilled:
        """Compute a prompt [tokens] alone, from its first token."""
        cache = KeyValueCache(self.config, 1, len(ids), self.device, self.dtype)
        hidden = None
        for start in range(0, len(ids), PREFILL_CHUNK):
            chunk = torch.from_numpy(ids[None, start : start + PREFILL_CHUNK]).to(self.device)
            positions = torch.arange(start, start + chunk.shape[1], device=self.device)[None]
            hidden = self.model.hidden(chunk, positions_BT=positions, cache=cache)
        assert hidden is not None, "a prompt has at least one token"
        return Prefilled(cache, len(ids), self.model.head(hidden[0, -1]).float().cpu().numpy())

    @torch.inference_mode()
    def allocate(self, prefilled: Prefilled) -> Row:
        """Give a sequence a row and copy its prompt's keys and values there."""
        tile = next((tile for tile in self.tiles if tile.free), None)
        if tile is None:
            slots = min(max(FIRST_SLOTS, prefilled.length), self.max_context)
            cache = KeyValueCache(self.config, self.tile_rows, slots, self.device, self.dtype)
            tile = Tile(cache, list(range(self.tile_rows)))
            self.tiles.append(tile)
        row = Row(tile, tile.free.pop(0))
        self._grow(tile, prefilled.length)
        for to, source in _keys_and_values(tile.cache, prefilled.cache):
            to[:, row.index, :, : prefilled.length] = source[:, 0, :, : prefilled.length]
        return row

    def release(self, row: Row) -> None:
        """The sequence has ended; a tile without sequences gives its memory back."""
        row.tile.free.append(row.index)
        row.tile.free.sort()
        if len(row.tile.free) == self.tile_rows:
            self.tiles.remove(row.tile)

    @torch.inference_mode()
    def decode(self, tile: Tile, tokens: dict[int, tuple[int, int]]) -> npt.NDArray[np.float32]:
        """One token further for rows of a tile.

        Args:
            tokens: row index -> (the last token, its position).

        Returns:
            Logits [B, V]; rows that were not given hold numbers without meaning.
        """
        self._grow(tile, max(position for _, position in tokens.values()) + 1)
        nothing = (0, tile.cache.max_length)  # the slot for padding
        rows = [tokens.get(row, nothing) for row in range(self.tile_rows)]
        ids_BT, positions_BT = torch.tensor(rows, device=self.device).T.unsqueeze(-1).unbind()
        logits = self.model(ids_BT, positions_BT=positions_BT, cache=tile.cache)
        result: npt.NDArray[np.float32] = logits[:, 0].float().cpu().numpy()
        return result

    def _grow(self, tile: Tile, length: int) -> None:
        """Make room for rows of `length` tokens."""
        old = tile.cache
        if length <= old.max_length:
            return
        slots = min(max(length, 2 * old.max_length + 1), self.max_context)
        tile.cache = KeyValueCache(self.config, self.tile_rows, slots, self.device, self.dtype)
        for to, source in _keys_and_values(tile.cache, old):
            to[:, :, :, : old.max_length] = source[:, :, :, : old.max_length]


def _keys_and_values(to: KeyValueCache, source: KeyValueCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(to.keys_LBHSD, source.keys_LBHSD), (to.values_LBHSD, source.values_LBHSD)]


def chosen_dtype(dtype: str, own: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of weights in memory, when `dtype` was asked for and they are stored as `own`.

    "auto" is `own`, but float32 on a processor that does not multiply bf16.

    Raises:
        UsageError: an unknown name.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" and not bf16_pays() else own
    if dtype not in DTYPES:
        known = "auto, " + ", ".join(DTYPES)
        raise UsageError(f'the torch backend has no dtype "{dtype}".', where="dtype", do=known)
    return DTYPES[dtype]
