"""Norms, rotary positions and the MLP: the small parts of a block."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlm.model.config import ModelConfig, RopeScaling

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}


class Linear(nn.Linear):
    """A matrix whose values come from `init_weights` or a file.

    torch's own start would be thrown away; it moves the global random state, and on the meta device it imports
    torch's compiler, which takes longer than reading a model.
    """

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Embedding(nn.Embedding):
    """A table whose values come from `init_weights` or a file; see `Linear`."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Norm(nn.Module):
    """RMS norm x / sqrt(mean(x²) + eps) · w (Zhang & Sennrich 2019, eq. 4) or layer norm with bias."""

    def __init__(self, config: ModelConfig, width: int, kind: str | None = None) -> None:
        super().__init__()
        self.kind, self.eps = kind or config.norm, config.norm_eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if self.kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        if self.kind == "layer":
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        # The fused kernel wants one dtype; under autocast the per-head norms see bf16.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def rotary_tables(
    config: ModelConfig, length: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """(cos, sin), each [length, head_dim], in fp32: position p turns the pair (i, i + D/2) by p · theta^(-2i/D).

    Su et al. 2021 (arXiv 2104.09864), eq. 34, in the half-split order of Hugging Face checkpoints.
    """
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device=device)
    frequencies = _stretched(config.rope_theta ** (-half / config.head_dim), config.rope_scaling)
    angles = torch.outer(torch.arange(length, dtype=torch.float64, device=device), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().float(), angles.sin().float()


def _stretched(frequencies: Tensor, scaling: RopeScaling | None) -> Tensor:
    """Frequencies in radians a token, as `RopeScaling` says."""
    if scaling is None:
        return frequencies
    slow = frequencies / scaling.factor
    if scaling.rope_type == "linear":
        return slow
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return share * frequencies + (1 - share) * slow


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotation; `cos` and `sin` broadcast against x."""
    first, second = x_BHTD.chunk(2, dim=-1)
    return x_BHTD * cos.to(x_BHTD.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x_BHTD.dtype)


class MLP(nn.Module):
    """Gated: down(act(gate(x)) · up(x)); plain: down(act(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gated, self.fused = config.mlp == "gated", config.fused_gate_up
        if self.fused:
            self.gate_up_proj = Linear(width, 2 * inner, bias=bias)
        else:
            if self.gated:
                self.gate_proj = Linear(width, inner, bias=bias)
            self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x_BTC: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        if not self.gated:
            return self.down_proj(self.activation(self.up_proj(x_BTC)))
        if self.fused:
            gate, up = self.gate_up_proj(x_BTC).chunk(2, dim=-1)
        else:
            gate, up = self.gate_proj(x_BTC), self.up_proj(x_BTC)
        return self.down_proj(self.activation(gate) * up)
