"""Memory of a fine-tuning step: that of training all weights, less what adapters do not need."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ownlm.console import output as out
from ownlm.console.errors import Refused
from ownlm.model.config import ModelConfig
from ownlm.model.lora import LoraSettings, add_lora
from ownlm.model.transformer import Transformer
from ownlm.training.memory import free_memory, step_memory, step_of
from ownlm.training.plan import TrainPlan

MOST_SHARE = 0.95


def adapter_parameters(config: ModelConfig, lora: LoraSettings | None) -> int:
    """Weights of the adapters; 0 without any."""
    if lora is None:
        return 0
    with torch.device("meta"):
        model = Transformer(config)
    return sum(parameter.numel() for parameter in add_lora(model, lora, 0))


def of_tuning(config: ModelConfig, plan: TrainPlan, lora: LoraSettings | None) -> dict[str, int]:
    """Predicted bytes of a step by part, their sum `needed`, and what is `free` now."""
    parts = step_memory(step_of(config, plan))
    if lora is not None:
        trained = 4 * adapter_parameters(config, lora)
        parts |= {"adapters": trained, "gradients": trained, "optimizer": 2 * trained}
    return {**parts, "needed": sum(parts.values()), "free": free_memory(plan)}


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
