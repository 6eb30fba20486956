"""What the processor and memory allow, read from made-up system files."""

import os
from pathlib import Path

import pytest

from ownlm.machine import cpu


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A Linux whose files the test writes; returns a function that writes one."""
    monkeypatch.setattr(cpu, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cpu, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cpu, "SYSTEM_CPUS", tmp_path / "cpus")
    monkeypatch.setattr(cpu.sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    cpu.cpu_flags.cache_clear()
    cpu.cpu_name.cache_clear()

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write(
        "proc/meminfo",
        "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    9000000 kB\n",
    )
    yield write
    cpu.cpu_flags.cache_clear()
    cpu.cpu_name.cache_clear()


@pytest.mark.parametrize(
    ("flags", "pays"),
    [
        ("fpu avx2 avx512f", False),
        ("avx2 avx512_bf16", True),
        ("amx_tile amx_bf16 amx_int8", True),
        ("amx_tile amx_int8", False),
        ("", False),
    ],
)
def test_bf16_pays_only_with_instructions_for_it(system, flags, pays):
    system("proc/cpuinfo", f"processor\t: 0\nmodel name\t: Some   CPU @ 3GHz\nflags\t\t: {flags}\n")
    assert cpu.bf16_pays() is pays
    assert cpu.cpu_name() == "Some CPU @ 3GHz"


def test_without_cpuinfo_nothing_is_promised(system):
    assert cpu.bf16_pays() is False
    assert cpu.cpu_name() != ""


def test_off_linux_other_architectures_do_not_pay(system, monkeypatch):
    monkeypatch.setattr(cpu.sys, "platform", "darwin")
    monkeypatch.setattr(cpu.platform, "machine", lambda: "arm64")
    assert cpu.bf16_pays() is False


def test_affinity_and_quota_limit_the_cores(system):
    assert cpu.num_cores() == 8
    system("proc/self/cgroup", "0::/box/inner\n")
    system("cgroup/box/cpu.max", "250000 100000\n")
    system("cgroup/box/inner/cpu.max", "max 100000\n")
    assert cpu.num_cores() == 2
    system("cgroup/box/inner/cpu.max", "10000 100000\n")
    assert cpu.num_cores() == 1


def test_cgroup_version_1_quota(system):
    system("proc/self/cgroup", "4:cpu,cpuacct:/job\n3:memory:/job\n")
    system("cgroup/cpu/job/cpu.cfs_quota_us", "300000\n")
    system("cgroup/cpu/job/cpu.cfs_period_us", "100000\n")
    system("cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    system("cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert cpu.num_cores() == 3


def test_hyper_threads_count_once_as_physical_cores(system):
    for i in range(8):
        system(f"cpus/cpu{i}/topology/thread_siblings_list", f"{i % 4},{i % 4 + 4}\n")
    assert cpu.num_physical_cores() == 4
    assert cpu.num_cores() == 8


def test_memory_of_the_machine_without_limits(system):
    assert cpu.total_memory() == 16_000_000 * 1024
    assert cpu.available_memory() == 9_000_000 * 1024
    assert cpu.memory_limit() is None


def test_a_cgroup_limit_counts_and_its_file_cache_can_be_reclaimed(system):
    system("proc/self/cgroup", "0::/box\n")
    system("cgroup/box/memory.max", "4000000000\n")
    system("cgroup/box/memory.current", "3000000000\n")
    system("cgroup/box/memory.stat", "anon 5\ninactive_file 1000000000\n")
    assert cpu.total_memory() == 4_000_000_000
    assert cpu.available_memory() == 2_000_000_000
    assert cpu.memory_limit() == 4_000_000_000


def test_a_version_1_limit_that_means_none_is_none(system):
    system("proc/self/cgroup", "4:memory:/box\n")
    system("cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n")
    system("cgroup/memory/box/memory.usage_in_bytes", "100\n")
    assert cpu.memory_limit() is None
    assert cpu.available_memory() == 9_000_000 * 1024


def test_a_path_out_of_the_cgroup_folder_stays_inside(system, tmp_path: Path):
    system("proc/self/cgroup", "0::/../../outside\n")
    system("outside/memory.max", "1000\n")
    system("outside/memory.current", "0\n")
    assert cpu.memory_limit() is None


def test_the_real_machine_gives_sane_figures():
    assert 1 <= cpu.num_physical_cores() <= cpu.num_cores() <= (os.cpu_count() or 1)
    assert 0 < cpu.available_memory() <= cpu.total_memory()
    assert cpu.cpu_name()
