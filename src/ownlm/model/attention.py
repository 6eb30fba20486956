"""Attention: z_i = Σ_j softmax_j(scale · q_i·k_j) v_j, with heads, masks and positions as the config says.

With one head, no mask, no positions, no QK-norm, identity projections and scale 1 it is the textbook's
z_i = Σ_j softmax_j(x_iᵀx_j) x_j (tests/model/test_attention.py shows it, docs/model.md explains it).

Shapes: B batch, T queries, S keys, C width, H heads, D head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlm.model.cache import KeyValueCache
from ownlm.model.config import ModelConfig
from ownlm.model.layers import Linear, Norm, rotate


class Attention(nn.Module):
    """Multi-head or grouped-query attention of one layer."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        width, query, kv, bias = (
            config.hidden_size,
            config.query_width,
            config.key_value_width,
            config.attention_bias,
        )
        self.window = config.window_of(layer)
        self.rotary = config.positions == "rotary" and layer not in config.no_rope_layers
        self.scale = config.attention_scale if config.attention_scale is not None else config.head_dim**-0.5
        if config.fused_qkv:
            self.qkv_proj = Linear(width, query + 2 * kv, bias=bias)
        else:
            self.q_proj = Linear(width, query, bias=bias)
            self.k_proj = Linear(width, kv, bias=bias)
            self.v_proj = Linear(width, kv, bias=bias)
        self.o_proj = Linear(query, width, bias=config.attention_output_bias)
        if config.qk_norm != "none":
            per_head = config.qk_norm == "head"
            self.q_norm = Norm(config, config.head_dim if per_head else query, kind="rms")
            self.k_norm = Norm(config, config.head_dim if per_head else kv, kind="rms")

    def forward(
        self,
        x_BTC: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: KeyValueCache | None = None,
        positions_BT: Tensor | None = None,
        end: int = 0,
    ) -> Tensor:
        """[B, T, C] -> [B, T, C].

        Args:
            rotary: (cos, sin) for the queries' positions, broadcastable to [B, H, T, D].
            mask: True where a query sees a key, broadcastable to [B, H, T, S]; None: causal (or full).
            cache: earlier keys and values; then `positions_BT` and `end` (slots in use) are given too.
        """
        q, k, v = self._project(x_BTC)
        if self.rotary and rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            assert positions_BT is not None
            k, v = cache.update(self.layer, k, v, positions_BT, end)
            k, v = k.to(q.dtype), v.to(q.dtype)
        causal = mask is None and self.config.causal
        shared = self.config.num_key_value_heads != self.config.num_attention_heads
        z_BHTD = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal, scale=self.scale, enable_gqa=shared
        )
        return self.o_proj(z_BHTD.transpose(1, 2).flatten(2))

    def _project(self, x_BTC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        if config.fused_qkv:
            widths = [config.query_width, config.key_value_width, config.key_value_width]
            q, k, v = self.qkv_proj(x_BTC).split(widths, dim=-1)
        else:
            q, k, v = self.q_proj(x_BTC), self.k_proj(x_BTC), self.v_proj(x_BTC)
        if config.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.unflatten(-1, (-1, config.head_dim)).transpose(1, 2) for t in (q, k, v))
        if config.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        # Values come out of autocast in bf16 while normalised queries stay in fp32: one dtype for the kernel.
        return q.to(v.dtype), k.to(v.dtype), v


def position_mask(positions_BT: Tensor, end: int, window: int | None) -> Tensor:
    """[B, 1, T, end]: query at position p sees slot s when s <= p, and s > p - window in a windowed layer."""
    slots = torch.arange(end, device=positions_BT.device)
    seen = slots <= positions_BT[:, None, :, None]
    if window is not None:
        seen &= slots > positions_BT[:, None, :, None] - window
    return seen


def window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """[length, length]: the causal band of a windowed layer."""
    index = torch.arange(length, device=device)
    distance = index[:, None] - index[None, :]
    return (distance >= 0) & (distance < window)


def texts_mask(starts_BT: Tensor, window: int | None) -> Tensor:
    """[B, 1, T, T] for rows of several texts: a query sees the keys from its text's start to itself.

    Args:
        starts_BT: the place in the row at which the text of each token begins.
        window: of the layer; at most so many keys are seen.
    """
    places = torch.arange(starts_BT.shape[1], device=starts_BT.device)
    first = starts_BT if window is None else starts_BT.maximum(places - window + 1)
    return ((places >= first[:, :, None]) & (places <= places[:, None]))[:, None]
