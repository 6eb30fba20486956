"""How much memory a training step takes, by part: predicted from sizes before anything is allocated."""

from __future__ import annotations

import torch

from ownlm.machine.cpu import available_memory
from ownlm.model.config import ModelConfig
from ownlm.training.fused import why_not
from ownlm.training.memory_paths import Parts, Step, fused, plain
from ownlm.training.plan import TrainPlan

# What comes with the first step whatever its sizes: threads, kernels that oneDNN compiles, library pages.
PROCESS_BYTES = {"cpu": 20_000_000, "cuda": 100_000_000}
CHECKPOINTING_BYTES = 30_000_000  # more on a CPU when blocks are computed again (bench/train_memory.py)

PATHS = {"plain": plain, "fused": fused}


def step_of(config: ModelConfig, plan: TrainPlan) -> Step:
    """The step that a plan makes again and again."""
    return Step(
        config,
        plan.per_device_train_batch_size,
        plan.context,
        plan.gradient_accumulation_steps,
        plan.dtype,
        plan.device,
        plan.gradient_checkpointing,
        plan.fused,
    )


def path_of(step: Step) -> str:
    """Which way the gradients are computed: a name of `PATHS`."""
    return "fused" if step.fused and not step.gradient_checkpointing else "plain"


def step_memory(step: Step) -> Parts:
    """Predicted bytes at the moment of a step when most is held.

    Returns:
        `weights`, `gradients`, `optimizer` (its state), `copies` (of weights in bf16), `activations`, `head` (its loss
        without [tokens, vocabulary] logits), `workspace` (held for the length of an operation), `process` (what comes
        with the first step whatever its sizes); parts that are empty at that moment are left out.
    """
    peak = max(PATHS[path_of(step)](step), key=lambda parts: sum(parts.values()))
    kind = step.device.split(":")[0]
    process = PROCESS_BYTES.get(kind, PROCESS_BYTES["cpu"])
    if step.gradient_checkpointing and kind == "cpu":
        process += CHECKPOINTING_BYTES
    parts = peak | {"process": process}
    return {name: size for name, size in parts.items() if size}


def bytes_to_train(config: ModelConfig, rows: int, context: int, dtype: str, device: str) -> int:
    """Predicted bytes of a step with micro-batches of so many rows."""
    fused_there = why_not(config, device, False) is None
    return sum(step_memory(Step(config, rows, context, 1, dtype, device, fused=fused_there)).values())


def free_memory(plan: TrainPlan) -> int:
    """Bytes that each process of a run can allocate now: of its GPU, else its share of the machine or container."""
    if plan.device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(torch.device(plan.device))
        return free
    return available_memory() // plan.world_size
