"""Keys and values of the tokens already seen: one slot a position, so rows of a batch may differ in length."""

from __future__ import annotations

import torch
from torch import Tensor

from ownlm.model.config import ModelConfig

# Attention reads whole blocks of slots: CPU kernels add in another order when the number of keys changes by a part
# of their vector width, so without it a row's last bits would depend on the longest row beside it.
SLOT_BLOCK = 64


class KeyValueCache:
    """Preallocated keys and values. B rows, S slots, H key-value heads, D head width.

    A key is stored in the slot of its position; a query at position p sees the slots <= p. The slot `max_length`
    takes the padding tokens of ragged batches and is never seen by a real query.

    Args:
        batch: rows B.
        max_length: longest sequence a row may reach; S = max_length + 1, rounded up to whole blocks.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        max_length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        slots = _whole_blocks(max_length + 1)
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, slots, config.head_dim)
        self.keys_LBHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.max_length = max_length

    @property
    def batch(self) -> int:
        """Rows B."""
        return self.keys_LBHSD.shape[1]

    def slots_in_use(self, positions_BT: Tensor) -> int:
        """Slots that queries at these positions may see, in whole blocks (at least one)."""
        real = positions_BT[positions_BT < self.max_length]
        return _whole_blocks(int(real.max()) + 1 if real.numel() else 1)

    def update(
        self, layer: int, keys_BHTD: Tensor, values_BHTD: Tensor, positions_BT: Tensor, end: int
    ) -> tuple[Tensor, Tensor]:
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


def _whole_blocks(slots: int) -> int:
    return -(-slots // SLOT_BLOCK) * SLOT_BLOCK
