"""Whether torch's compiler pays: it shortens every step and costs its time once, so a rule decides, not a trial."""

from __future__ import annotations

import importlib.util

import torch

from ownlm.console.errors import Refused
from ownlm.machine.system import compiler
from ownlm.model.transformer import Transformer

# Compiling one block, forwards and backwards, without a cache; all blocks share what comes out. On two cores it took
# 28 s and made a step of 4 × 256 1.28 times as fast; a GPU's numbers are assumptions of the same kind.
ASSUMED_COST = {"cpu": 30.0, "cuda": 60.0}  # seconds
ASSUMED_SAVING = {"cpu": 0.2, "cuda": 0.25}  # of the training time


def decide(asked: str, device: str, fused: bool, seconds: float) -> bool:
    """Whether the blocks are compiled.

    Args:
        asked: "auto", "yes" or "no".
        fused: whether gradients come from our kernels, which leave nothing to compile.
        seconds: that training is expected to take without compiling.

    Raises:
        Refused: "yes" where it cannot be done.
    """
    if asked == "no":
        return False
    missing = _missing(device, fused)
    if asked == "yes":
        if missing:
            raise Refused(
                f"the blocks cannot be compiled: {missing}.", where="--compile yes", do="--compile auto"
            )
        return True
    kind = device.split(":")[0]
    return not missing and seconds * ASSUMED_SAVING[kind] > ASSUMED_COST[kind]


def _missing(device: str, fused: bool) -> str:
    """What stands against compiling, or "" when nothing does."""
    kind = device.split(":")[0]
    if fused:
        return "training runs on the native kernels, which are faster"
    if kind not in ASSUMED_COST:
        return f"torch does not compile for {kind} well enough"
    if kind == "cpu" and not compiler():
        return "there is no C++ compiler"
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return ""


def compile_blocks(model: Transformer) -> None:
    """Let training run each block through torch's compiler, which starts at its first call.

    Whatever else the model does runs as it is written: another shape or mode would be compiled once more.
    """
    model.in_training = [torch.compile(block, dynamic=False) for block in model.blocks]
