"""What follows from two measured figures: hours to train models, tokens a second to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ownlm.model.config import ModelConfig
from ownlm.model.sizes import config_for

TRAINED_SIZES = ("3M", "10M", "30M", "124M")
TOKENS_A_PARAMETER = 20  # compute-optimal: Hoffmann et al. 2022, arXiv 2203.15556, table 3
VOCAB_SIZE = 8192
CONTEXT = 256
MICRO_BATCH = 8

# Share of the matmul rate at the model's own width that training keeps: norms, attention, softmax over the
# vocabulary and the optimizer take the rest.
UTILISATION = 0.3

RUN_CONTEXT = 4096
# Groups of 32 weights share a 16-bit scale.
BYTES_A_WEIGHT = {"int8": 1 + 2 / 32, "int4": 0.5 + 2 / 32}
KEY_VALUE_BYTES = 2  # a cache in 16 bit


def _qwen3(width: int, layers: int, heads: int, intermediate: int, *, tied: bool = True) -> ModelConfig:
    return ModelConfig(
        vocab_size=151_936,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=intermediate,
        max_position_embeddings=RUN_CONTEXT,
        tie_word_embeddings=tied,
    )


# Shapes of a family that comes in all these sizes (Qwen3 technical report 2025, arXiv 2505.09388, table 1).
RUN_MODELS = {
    "0.6B": _qwen3(1024, 28, 16, 3072),
    "1.7B": _qwen3(2048, 28, 16, 6144),
    "4B": _qwen3(2560, 36, 32, 9728),
    "8B": _qwen3(4096, 36, 32, 12288, tied=False),
}


@dataclass(frozen=True)
class Training:
    """Predicted cost of training one size once: tokens, FLOPs, hours, bytes of memory."""

    size: str
    parameters: int
    tokens: int
    flops: float
    rate: float
    hours: float
    memory: int
    fits: bool


@dataclass(frozen=True)
class Running:
    """Predicted speed and memory of running one model: at most this many tokens a second, for one reader."""

    size: str
    weights: str
    tokens_per_second: float
    memory: int
    key_value_memory: int
    fits: bool


def training(
    rates: Mapping[int, float], memory: int, bytes_to_train: Callable[[ModelConfig, int, int], int]
) -> list[Training]:
    """Hours to train each size at 20 tokens a parameter.

    FLOPs are 6 a weight and token, plus attention (`ModelConfig.flops_per_token`); the rate is the matmul
    rate measured nearest to the model's width, times `UTILISATION`.

    Args:
        rates: measured FLOP/s by matrix size.
        memory: bytes that can be used.
        bytes_to_train: of a model with so many rows of so many tokens at once.
    """
    rows = []
    for size in TRAINED_SIZES:
        config = config_for(size, VOCAB_SIZE, CONTEXT)
        parameters = config.num_parameters()
        tokens = TOKENS_A_PARAMETER * parameters
        flops = config.flops_per_token(CONTEXT) * tokens
        nearest = min(rates, key=lambda n: abs(n - config.hidden_size))
        needed = bytes_to_train(config, MICRO_BATCH, CONTEXT)
        hours = flops / (rates[nearest] * UTILISATION) / 3600
        rows.append(
            Training(size, parameters, tokens, flops, rates[nearest], hours, needed, needed <= memory)
        )
    return rows


def running(bandwidth: float, memory: int) -> list[Running]:
    """Tokens a second and bytes to run each model at int8 and int4, one sequence with a half-full cache.

    Every weight of every matrix is read once for a token, and so are the keys and values of the tokens before
    it: the read bandwidth is the bound, which real programs come near but do not reach.

    Args:
        bandwidth: measured bytes/s.
        memory: bytes that can be used.
    """
    rows = []
    for size, config in RUN_MODELS.items():
        counts = config.parameter_counts()
        # Of a separate input embedding one row is read for a token, of a tied one (as the head) all rows.
        read = config.num_parameters() - (0 if config.tie_word_embeddings else counts["embedding"])
        a_token = config.key_value_bytes_per_token(KEY_VALUE_BYTES)
        for weights, width in BYTES_A_WEIGHT.items():
            speed = bandwidth / (read * width + a_token * RUN_CONTEXT / 2)
            cache = a_token * RUN_CONTEXT
            needed = round(config.num_parameters() * width) + cache
            rows.append(Running(size, weights, speed, needed, cache, needed <= memory))
    return rows
