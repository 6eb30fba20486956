"""How this process was started: one of how many, and whether they can share a device."""

from __future__ import annotations

import os

import torch

from ownlm.console.errors import UsageError


def refuse_device(device: str, count: int) -> None:
    """Refuse a device that several processes cannot share out.

    Raises:
        UsageError: with one that they can.
    """
    if count == 1 or device == "cpu":
        return
    kind = device.split(":")[0]
    if kind != "cuda":
        raise UsageError(f"several processes cannot share {kind}.", where="--device", do="--device cpu")
    if device != kind:
        raise UsageError(
            "each process takes a GPU of its own.", where=f"--device {device}", do="--device cuda"
        )
    gpus = torch.cuda.device_count()
    if gpus < count:
        raise UsageError(
            f"{count} processes need {count} GPUs, this machine has {gpus}.",
            where="--device",
            do=f"torchrun --nproc-per-node {gpus} -m ownlm pretrain …, or --device cpu",
        )


def place() -> tuple[int, int]:
    """(rank, count) as torchrun says them in the environment; (0, 1) without it.

    Raises:
        UsageError: several processes that cannot find each other, or on several machines.
    """
    environment = os.environ
    count = environment.get("WORLD_SIZE", "1")
    if count == "1":
        return 0, 1
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise UsageError(
            f"this is one of several processes (WORLD_SIZE is {count}), but {missing[0]} is not set.",
            why="They cannot find each other.",
            do=f"torchrun --nproc-per-node {count} -m ownlm pretrain …",
        )
    if environment.get("LOCAL_WORLD_SIZE", count) != count:
        raise UsageError(
            f"{count} processes on several machines: only those of one machine can train together.",
            do="torchrun --nnodes 1 --nproc-per-node N -m ownlm pretrain …",
        )
    return int(environment["RANK"]), int(count)
