"""The inference kernels built with sanitizers: no byte outside of what was allocated, no undefined behaviour."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import ownlm

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
SOURCES = Path(ownlm.__file__).parent / "kernels" / "inference"
DRIVER = Path(__file__).with_name("inference_driver.cpp")
FLAGS = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-pthread"]


def built(folder: Path, *sanitizers: str) -> Path:
    """The driver, compiled; skips where the compiler cannot."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    program = folder / "driver"
    command = [COMPILER, *FLAGS, *sanitizers, f"-I{SOURCES}", str(DRIVER), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "cannot find -l" in done.stderr or "libclang_rt" in done.stderr:
        pytest.skip(f"{COMPILER} has no {' '.join(sanitizers)}")
    assert done.returncode == 0, done.stderr[-3000:]
    return program


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "sanitizers",
    [
        # 40 seconds of a core: part of every full check.
        pytest.param(
            ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
            id="address",
            marks=pytest.mark.clients,
        ),
        pytest.param(["-fsanitize=thread"], id="thread", marks=pytest.mark.long),
    ],
)
def test_kernels_stay_inside_their_memory(tmp_path: Path, sanitizers: list[str]) -> None:
    program = built(tmp_path, *sanitizers)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) >= 16
    assert "nan" not in done.stdout
