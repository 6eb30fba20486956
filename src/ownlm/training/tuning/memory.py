"""Memory of a fine-tuning step: that of training all weights, less what adapters do not need."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ownlm.console import output as out
from ownlm.console.errors import Refused
from ownlm.engine.memory_plan import BYTES_A_WEIGHT
from ownlm.model.config import ModelConfig
from ownlm.model.encoder import Encoder, EncoderConfig
from ownlm.model.lora import LoraSettings, add_lora
from ownlm.model.transformer import Transformer
from ownlm.training.memory import free_memory, step_memory, step_of
from ownlm.training.plan import TrainPlan

MOST_SHARE = 0.95


def adapter_parameters(config: ModelConfig | EncoderConfig, lora: LoraSettings | None) -> int:
    """Weights of the adapters; 0 without any."""
    if lora is None:
        return 0
    with torch.device("meta"):
        model = Encoder(config) if isinstance(config, EncoderConfig) else Transformer(config)
    return sum(parameter.numel() for parameter in add_lora(model, lora, 0))


def of_tuning(
    config: ModelConfig | EncoderConfig, plan: TrainPlan, lora: LoraSettings | None, *, int8: bool = False
) -> dict[str, int]:
    """Predicted bytes of a step by part, their sum `needed`, and what is `free` now.

    Args:
        int8: the frozen weights are held in int8, and so in no copy.
    """
    parts = (
        _of_encoder(config, plan) if isinstance(config, EncoderConfig) else step_memory(step_of(config, plan))
    )
    if lora is not None:
        trained = 4 * adapter_parameters(config, lora)
        parts |= {"adapters": trained, "gradients": trained, "optimizer": 2 * trained}
    if int8:
        parts |= {"weights": round(BYTES_A_WEIGHT["int8"] * config.num_parameters()), "copies": 0}
    return {**parts, "needed": sum(parts.values()), "free": free_memory(plan)}


def _of_encoder(config: EncoderConfig, plan: TrainPlan) -> dict[str, int]:
    """Roughly: 34 values of the width and 5 of each pair of tokens a layer (Korthikanti et al. 2022, arXiv 2205.05198,
    eq. 2, whose values have 2 bytes)."""
    tokens = plan.per_device_train_batch_size * plan.context
    pairs = 5 * config.num_attention_heads * plan.context
    values = config.num_hidden_layers * tokens * (34 * config.hidden_size + pairs)
    weights = 4 * config.num_parameters()
    size = values * (2 if plan.dtype == "float32" else 1)
    return {"weights": weights, "gradients": weights, "optimizer": 2 * weights, "activations": size}


def refuse_too_large(memory: Mapping[str, int], way: str) -> None:
    """Refuse a plan that cannot fit.

    Raises:
        Refused: with what helps.
    """
    if memory["needed"] <= MOST_SHARE * memory["free"]:
        return
    smaller = "--per-device-train-batch-size 1 --gradient-checkpointing" + (
        "" if way == "lora" else ", or --lora"
    )
    raise Refused(
        f"training needs about {out.human_bytes(memory['needed'])}, {out.human_bytes(memory['free'])} are free.",
        why="Predicted from the sizes, before anything was allocated.",
        do=smaller,
    )
