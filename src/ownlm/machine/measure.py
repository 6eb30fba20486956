"""Two figures that bound every model on this machine: matrix multiplication rate and memory read bandwidth.

Both are the best of several repetitions: a ceiling is asked for, and anything else that runs only lowers it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ownlm.machine.cpu import available_memory

if TYPE_CHECKING:
    import torch

READ_BYTES = 2**29  # larger than the caches of nearly all machines: memory is read, not a cache


def matmul_rate(dtype: str | torch.dtype, n: int, *, device: str = "cpu", seconds: float = 0.4) -> float:
    """FLOP/s of an [n, n] x [n, n] product, counted as 2 n^3, with torch's current number of threads.

    Args:
        dtype: `"float32"`, `"bfloat16"` or a torch dtype.
        n: rows and columns.
        device: where to multiply.
        seconds: how long to repeat; the first product is not counted (libraries choose their code then).

    Returns:
        The highest rate seen, in FLOP/s.
    """
    import torch

    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(n, n, generator=generator).to(device=device, dtype=kind)
    out = torch.empty_like(left)
    # Small products are timed in groups: one takes a few microseconds, as long as reading the clock.
    group = max(1, round(2e7 / n**3)) if device == "cpu" else 10

    def multiply() -> None:
        for _ in range(group):
            torch.mm(left, left, out=out)

    with torch.no_grad():
        best = _best_time(multiply, seconds, device)
    return 2 * n**3 * group / best


def read_bandwidth(*, size: int = READ_BYTES, seconds: float = 0.4) -> float:
    """Bytes/s at which weights stream from memory: a matrix-vector product, as generating one token does.

    Args:
        size: bytes of the matrix; at most a quarter of the memory that is available.
        seconds: how long to repeat, after the matrix was filled.
    """
    import torch

    columns = 4096
    rows = max(1, min(size, available_memory() // 4) // (4 * columns))
    with torch.no_grad():
        # Filled, because pages never written would all be one and the same page of zeros.
        matrix_RC = torch.empty(rows, columns).fill_(1.0)
        vector_C, out_R = torch.ones(columns), torch.empty(rows)
        best = _best_time(lambda: torch.mv(matrix_RC, vector_C, out=out_R), seconds, "cpu")
    return matrix_RC.nbytes / best


def _best_time(work: Callable[[], object], seconds: float, device: str) -> float:
    """The shortest of the repetitions that fit in `seconds` (one at least), after one that is not counted."""
    work()
    _wait_for(device)
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        work()
        _wait_for(device)
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


def _wait_for(device: str) -> None:
    """GPUs work behind the program's back: wait until they are done."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device.startswith("mps"):
        torch.mps.synchronize()
