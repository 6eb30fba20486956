"""Which device computes, and in which dtype: rules over what the machine has, never a timing."""

from __future__ import annotations

import torch

from ownlm.console.errors import Refused, UsageError
from ownlm.machine.cpu import bf16_pays


def choose_device(device: str) -> str:
    """cuda, then mps, then cpu; or the one that was asked for, refused when it is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in there:
        raise UsageError(f'there is no device "{device}".', where="--device", do="--device cpu, cuda or mps")
    if not there[kind]:
        raise UsageError(
            f"this machine has no {kind} device that torch can use.", where="--device", do="ownlm doctor"
        )
    return device


def choose_dtype(dtype: str, device: str) -> str:
    """Arithmetic of the products: bf16 only where the hardware multiplies it (emulated bf16 is 300 times slower)."""
    pays = device.startswith("cuda") or (device == "cpu" and bf16_pays())
    if dtype == "auto":
        return "bfloat16" if pays else "float32"
    if dtype == "bfloat16" and not pays:
        raise Refused(
            "this processor has no bf16 arithmetic (avx512_bf16 or amx); it would be emulated, far slower than fp32.",
            where="--dtype",
            do="--dtype float32",
        )
    return dtype
