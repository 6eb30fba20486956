"""The processor and memory that this process may really use: affinity and cgroup limits counted.

Sources: Linux `/proc/cpuinfo`, `/proc/meminfo`, cgroup v1 and v2 files; `sysctl` and `vm_stat` on macOS;
`GlobalMemoryStatusEx` on Windows. Nothing here imports torch, except `bf16_pays` off Linux.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
SYSTEM_CPUS = Path("/sys/devices/system/cpu")

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h

# Instructions that multiply bf16 directly. Plain AVX2 emulates it: below 0.5 GFLOP/s against 154 in fp32.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The instruction set flags of the first processor; empty where the system does not say."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", _read(PROC / "cpuinfo"), re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


@functools.cache
def cpu_name() -> str:
    """The name of the processor as its maker writes it, or the architecture when the system does not say."""
    match = re.search(r"^model name\s*:\s*(.*)$", _read(PROC / "cpuinfo"), re.MULTILINE)
    name = match[1] if match else ""
    if not name and sys.platform == "darwin":
        name = _command("sysctl", "-n", "machdep.cpu.brand_string")
    return " ".join((name or platform.processor() or platform.machine() or "unknown").split())


def bf16_pays() -> bool:
    """Whether this CPU multiplies bf16 faster than fp32 (avx512_bf16 or amx). GPUs are not asked here."""
    if sys.platform == "linux":
        return bool(BF16_FLAGS & cpu_flags())
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "amx_tile"))


def num_cores() -> int:
    """How many processors this process may use at the same time (hyper-threads counted), at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, cores if quota is None else min(cores, round(quota)))


def num_physical_cores() -> int:
    """Like `num_cores`, but hyper-threads of one core count once: the right number of matmul threads."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = affinity(0) if affinity else set(range(os.cpu_count() or 1))
    siblings = {_read(SYSTEM_CPUS / f"cpu{i}" / "topology" / "thread_siblings_list").strip() for i in allowed}
    if sys.platform == "darwin" and (count := _command("sysctl", "-n", "hw.physicalcpu")):
        return max(1, min(int(count), num_cores()))
    return max(1, min(num_cores(), len(siblings))) if siblings and "" not in siblings else num_cores()


def total_memory() -> int:
    """Bytes of memory that this process could get at most: the machine's, or the cgroup limit when lower."""
    total = _system_memory()[0]
    limits = [limit for limit, _ in _memory_limits()]
    return min([total, *limits])


def available_memory() -> int:
    """Bytes that can be allocated now without swapping: the system's estimate, or what the cgroup leaves."""
    available = _system_memory()[1]
    left = [max(limit - used, 0) for limit, used in _memory_limits()]
    return min([available, *left])


class ProcessMemory(NamedTuple):
    """Bytes of this process; 0 where the system does not say.

    Attributes:
        now: resident. peak: the most that was resident so far.
        allocated: what it got from the system for data, touched yet or not.
    """

    now: int
    peak: int
    allocated: int


def process_memory() -> ProcessMemory:
    """What this process holds; where only the present is known (macOS), that counts as all three."""
    status = _read(PROC / "self" / "status")
    fields = dict(re.findall(r"^(VmRSS|VmHWM|VmData):\s+(\d+) kB$", status, re.MULTILINE))
    if len(fields) == 3:
        return ProcessMemory(*(int(fields[name]) * 1024 for name in ("VmRSS", "VmHWM", "VmData")))
    resident = _command("ps", "-o", "rss=", "-p", str(os.getpid())) if sys.platform == "darwin" else ""
    return ProcessMemory(*[int(resident or 0) * 1024] * 3)


def give_freed_memory_back() -> None:
    """From now on large blocks go back to the system as soon as they are freed, where the C library is glibc.

    Left to itself glibc keeps freed blocks of up to 32 MB, and the gaps between them, for later: twice the memory in
    use when sizes vary (bench/train_memory.py). New blocks then cost a little time, so this is for when memory is short.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**20)


def memory_limit() -> int | None:
    """The cgroup's memory limit in bytes when it is below the machine's memory, else None."""
    lowest = min((limit for limit, _ in _memory_limits()), default=None)
    return lowest if lowest is not None and lowest < _system_memory()[0] else None


def _system_memory() -> tuple[int, int]:
    """(total, available) bytes of the whole machine; a figure the system does not tell counts as 2 GB."""
    fields: dict[str, str] = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read(PROC / "meminfo"), re.MULTILINE))
    if fields:
        total = int(fields["MemTotal"]) * 1024
        return total, int(fields.get("MemAvailable", fields["MemFree"])) * 1024
    if sys.platform == "darwin":
        return _mac_memory()
    if sys.platform == "win32":
        return _windows_memory()
    return 2 * 10**9, 2 * 10**9


def _mac_memory() -> tuple[int, int]:
    total = int(_command("sysctl", "-n", "hw.memsize") or 2 * 10**9)
    text = _command("vm_stat")
    page = re.search(r"page size of (\d+)", text)
    kinds = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)", text, re.MULTILINE)
    pages = sum(int(count) for count in kinds)
    return total, pages * int(page[1]) if page else total // 2


def _windows_memory() -> tuple[int, int]:
    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_uint64) for name in ("total", "available", "a", "b", "c", "d", "e")),
        )

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined,unused-ignore]
    return int(status.total), int(status.available)


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """The process's cgroup and those above it (a limit on any of them counts); v2 first, then v1."""
    for line in _read(PROC / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root = CGROUP
        elif controller in controllers.split(","):
            root = CGROUP / controller
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for count in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:count])


def _cpu_quota() -> float | None:
    """How many processors' worth of time the cgroup grants, or None without a limit."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        v2 = _read(folder / "cpu.max").split()
        if len(v2) == 2 and v2[0] != "max":
            quotas.append(int(v2[0]) / int(v2[1]))
        v1, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
        if v1 and period and int(v1) > 0:
            quotas.append(int(v1) / int(period))
    return min(quotas, default=None)


def _memory_limits() -> list[tuple[int, int]]:
    """(limit, used) in bytes of each cgroup above the process; file cache is not counted as used."""
    limits = []
    for folder in _cgroup_folders("memory"):
        for limit_file, used_file, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _read(folder / limit_file).strip(), _read(folder / used_file).strip()
            if not limit.isdigit() or not used.isdigit():
                continue
            found = re.search(rf"^{cache} (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
            limits.append((int(limit), max(int(used) - (int(found[1]) if found else 0), 0)))
    return limits


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _command(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
