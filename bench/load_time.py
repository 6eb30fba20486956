"""Opening a checkpoint: seconds and peak memory, ours beside transformers, 124M and 1.1B weights.

    python bench/load_time.py [--rounds 5] [--size 124M 1.1B]

The checkpoints are random Llama-shaped models written by us. Each load is a process of its own, in turn; counted
is the time from the call to the ready model (imports are not), the memory is the process's peak above what it was
before the call. `read` is the time to read the file once with plain reads. Medians; files are in the page cache
for all of them (a round before the first is not counted).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPES = {  # layers, width, heads, key-value heads, inner width, vocabulary, dtype
    "124M": (12, 768, 12, 12, 2048, 50304, "float32"),
    "1.1B": (22, 2048, 32, 4, 5632, 32000, "bfloat16"),
}
OURS = """
from ownlm.model.checkpoint import load_model
import torch
def load(folder, dtype): return load_model(folder, dtype=getattr(torch, dtype))
"""
THEIRS = """
from transformers import AutoModelForCausalLM
import torch
def load(folder, dtype): return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
"""
MEASURE = """
import gc, sys, time
def status(name):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(name))
gc.collect()
open("/proc/self/clear_refs", "w").write("5")  # forget the peak of the imports
before, start = status("VmRSS"), time.perf_counter()
model = load(sys.argv[1], sys.argv[2])
print(time.perf_counter() - start, status("VmHWM") - before, sum(p.numel() for p in model.parameters()))
"""


def write(folder: Path, shape: tuple[int, int, int, int, int, int, str]) -> int:
    """A random model; returns the bytes of its weights."""
    import torch

    from ownlm.model.checkpoint import save_model
    from ownlm.model.config import ModelConfig
    from ownlm.model.families import FAMILIES
    from ownlm.model.transformer import Transformer

    layers, width, heads, kv, inner, vocabulary, dtype = shape
    config = ModelConfig(
        vocabulary, width, layers, heads, kv, width // heads, inner, 2048, architecture="llama",
        tie_word_embeddings=False, **FAMILIES["llama"].fixed,
    )  # fmt: skip
    model = Transformer(config).to(getattr(torch, dtype))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    save_model(model, folder, {}, getattr(torch, dtype))
    return (folder / "model.safetensors").stat().st_size


def load(program: str, folder: Path, dtype: str) -> tuple[float, int]:
    """(seconds, peak bytes above the start) of one load in a new process."""
    command = [sys.executable, "-c", program + MEASURE, str(folder), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak, _ = done.stdout.split()[-3:]
    return float(seconds), int(peak)


def read_once(file: Path) -> float:
    """Seconds of reading a file into one buffer."""
    buffer = bytearray(64 * 2**20)
    start = time.perf_counter()
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass
    return time.perf_counter() - start


def main() -> None:
    """Measure the sizes that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", nargs="+", choices=SHAPES, default=list(SHAPES))
    options = parser.parse_args()
    for name in options.size:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            dtype = SHAPES[name][-1]
            size = write(folder, SHAPES[name])
            found: dict[str, list[tuple[float, int]]] = {"ownlm": [], "transformers": []}
            reads = []
            for number in range(options.rounds + 1):
                reads.append(read_once(folder / "model.safetensors"))
                for program, code in (("ownlm", OURS), ("transformers", THEIRS)):
                    measured = load(code, folder, dtype)
                    if number:
                        found[program].append(measured)
            print(f"{name} {dtype}: file {size / 1e6:,.0f} MB, read once {statistics.median(reads):.2f} s")
            for program, values in found.items():
                seconds = statistics.median(s for s, _ in values)
                peak = statistics.median(p for _, p in values)
                print(
                    f"  {program:13} {seconds:6.2f} s   peak {peak / 1e6:7,.0f} MB = {peak / size:.2f} × the file"
                )


if __name__ == "__main__":
    main()
