"""One look at this computer: what it has, what was measured just now, and what that predicts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ownlm.machine import cpu, measure, predict, system
from ownlm.model.config import ModelConfig

MATMUL_SECONDS = 3.0
CPU_SIZES = (256, 512, 1024, 2048)  # widths of the models that a CPU trains, and one that fills every cache
GPU_SIZES = (1024, 4096)


@dataclass(frozen=True)
class Examination:
    """What `ownlm doctor` found. Sizes are bytes, rates a second; items can be read like those of a dict.

    Args:
        device: where training and generation would run, with its name.
        cores: usable processors and physical cores, affinity and cgroup limits counted.
        memory: bytes in total, available now, and the cgroup limit when there is one.
        disk_free: bytes free where the command was started.
        versions: of Python, the system and packages.
        dtypes: arithmetic that pays on the device.
        compiler: path of a C++ compiler, or empty.
        extras: optional dependencies and what is missing of them.
        problems: settings that will lose text or slow the machine down, each with what helps.
        measured: matmul FLOP/s by dtype and size (and the sizes that took too long), read bandwidth.
        predicted: training and running, with the assumptions behind them.
    """

    device: dict[str, Any]
    cores: dict[str, int]
    memory: dict[str, int | None]
    disk_free: int
    versions: dict[str, str]
    dtypes: list[str]
    compiler: str
    extras: list[dict[str, Any]]
    problems: list[str]
    measured: dict[str, Any]
    predicted: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def keys(self) -> list[str]:
        """The names of the parts, so that `dict(examination)` works."""
        return list(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, texts, lists and dicts."""
        return asdict(self)


def examine(folder: Path, bytes_to_train: Callable[[ModelConfig, int, int, str, str], int]) -> Examination:
    """Look at the machine; takes at most about five seconds, nearly all of it measuring.

    Args:
        folder: whose disk is looked at.
        bytes_to_train: memory of a training step of a model, by rows, tokens a row, dtype and device.
    """
    device = find_device()
    dtypes = paying_dtypes(device["type"])
    problems = [*system.encoding_problems(), *_load_problems()]
    rates = {dtype: matmul_rates(dtype, device["type"], MATMUL_SECONDS / len(dtypes)) for dtype in dtypes}
    bandwidth = measure.read_bandwidth()
    available = cpu.available_memory()
    # Where two kinds of arithmetic pay, training takes the shorter one.
    training = predict.training(
        rates[dtypes[-1]],
        device.get("memory", available),
        lambda config, rows, context: bytes_to_train(config, rows, context, dtypes[-1], device["type"]),
    )
    return Examination(
        device=device,
        cores={"usable": cpu.num_cores(), "physical": cpu.num_physical_cores()},
        memory={"total": cpu.total_memory(), "available": available, "limit": cpu.memory_limit()},
        disk_free=system.free_disk(folder),
        versions=system.versions(),
        dtypes=dtypes,
        compiler=system.compiler(),
        extras=[asdict(extra) for extra in system.extras()],
        problems=problems,
        measured={
            "matmul": {dtype: {str(n): rate for n, rate in sizes.items()} for dtype, sizes in rates.items()},
            "not_measured": {
                d: slow for d, sizes in rates.items() if (slow := _left_out(sizes, device["type"]))
            },
            "read_bandwidth": bandwidth,
        },
        predicted={
            "assumed": {
                "dtype": dtypes[-1],
                "utilisation": predict.UTILISATION,
                "tokens_per_parameter": predict.TOKENS_A_PARAMETER,
                "vocab_size": predict.VOCAB_SIZE,
                "context": predict.CONTEXT,
                "run_context": predict.RUN_CONTEXT,
                "bytes_per_weight": predict.BYTES_A_WEIGHT,
            },
            "training": [asdict(row) for row in training],
            "running": [asdict(row) for row in predict.running(bandwidth, available)],
        },
    )


def find_device() -> dict[str, Any]:
    """The best device torch sees: its `type` (cuda, mps, cpu) and `name`; GPUs with free bytes (`memory`)."""
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return {
            "type": "cuda",
            "name": torch.cuda.get_device_name(),
            "cpu": cpu.cpu_name(),
            "memory": free,
        }
    if torch.backends.mps.is_available():
        return {"type": "mps", "name": "Apple GPU", "cpu": cpu.cpu_name()}
    return {"type": "cpu", "name": cpu.cpu_name(), "cpu": cpu.cpu_name()}


def paying_dtypes(device: str) -> list[str]:
    """Arithmetic that is worth using on a device: fp32, and bf16 where the hardware multiplies it."""
    if device == "cuda":
        import torch

        return (
            ["float32", "bfloat16"]
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else ["float32"]
        )
    return ["float32", "bfloat16"] if device == "cpu" and cpu.bf16_pays() else ["float32"]


def matmul_rates(dtype: str, device: str, seconds: float) -> dict[int, float]:
    """FLOP/s by matrix size, smallest first; sizes that would not fit into `seconds` are left out."""
    rates: dict[int, float] = {}
    sizes = _sizes(device)
    end = time.perf_counter() + seconds
    for n in sizes:
        if rates and time.perf_counter() + 2 * 2 * n**3 / min(rates.values()) > end:
            break
        rates[n] = measure.matmul_rate(dtype, n, device=device, seconds=0.6 * seconds / len(sizes))
    return rates


def _sizes(device: str) -> tuple[int, ...]:
    return CPU_SIZES if device == "cpu" else GPU_SIZES


def _left_out(rates: dict[int, float], device: str) -> list[int]:
    return [n for n in _sizes(device) if n not in rates]


def _load_problems() -> list[str]:
    """Other programs at work make every measured figure too low."""
    if not hasattr(os, "getloadavg"):
        return []
    load, cores = os.getloadavg()[0], cpu.num_cores()
    if load < 0.5 * cores:
        return []
    return [
        f"other programs keep the processor busy (load {load:.1f} on {cores}): measured figures come out low"
    ]
