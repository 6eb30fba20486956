"""Keys and values of the tokens already seen: one slot a position, so rows of a batch may differ in length."""

from __future__ import annotations

import torch
from torch import Tensor

from ownlm.model.config import ModelConfig


class KeyValueCache:
    """Preallocated keys and values. B rows, S slots, H key-value heads, D head width.

    A key is stored in the slot of its position; a query at position p sees the slots <= p. Slot S - 1 (the
    position `max_length`) takes the padding tokens of ragged batches and is never seen by a real query.

    Args:
        batch: rows B.
        max_length: longest sequence a row may reach; S = max_length + 1.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        max_length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, max_length + 1, config.head_dim)
        self.keys_LBHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.max_length = max_length

    @property
    def batch(self) -> int:
        """Rows B."""
        return self.keys_LBHSD.shape[1]

    def update(self, layer: int, keys_BHTD: Tensor, values_BHTD: Tensor, positions_BT: Tensor, end: int) -> tuple[Tensor, Tensor]:
        """Store T new tokens a row; return the keys and values of the slots [0, end) of this layer."""
        keys, values = self.keys_LBHSD[layer], self.values_LBHSD[layer]
        index = positions_BT[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
        keys.scatter_(2, index, keys_BHTD.to(keys.dtype))
        values.scatter_(2, index, values_BHTD.to(values.dtype))
        return keys[:, :, :end], values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order."""
        self.keys_LBHSD = self.keys_LBHSD[:, rows].contiguous()
        self.values_LBHSD = self.values_LBHSD[:, rows].contiguous()
