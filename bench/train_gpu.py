"""Training on one GPU: tokens a second, share of the card's measured matmul rate, where the rest goes, peak memory.

    python bench/train_gpu.py                          # 124M, context 1,024, vocabulary 50,304, bf16
    python bench/train_gpu.py --cpu --size 1M --steps 3 # the same script on a CPU, small, to see that it works

The text is made from a seed: speed does not depend on what is learned. Timed is `ownlm pretrain` as typed, in a process
of its own: the median step of its log.jsonl after the warm-up. Then the same command runs once more in this process,
where torch.profiler looks at a few steps after the warm-up and the allocator's peak is read; its own times are not used
for tokens a second. Without a GPU and without --cpu: exit code 3.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ownlm.machine.cpu import cpu_name
from ownlm.machine.measure import matmul_rate
from ownlm.model.checkpoint import load_config
from ownlm.training.log import read_log
from ownlm.training.loop import Trainer

# What the names of operators and kernels say; the first pattern that fits counts.
KINDS = {
    "attention": r"attention|flash|fmha|softmax",
    "matrix products": r"gemm|matmul|aten::(mm|addmm|bmm|baddbmm|linear)|cutlass|nvjet|ownlm_.*product",
    "copies and casts": r"copy|memcpy|memset|cast|to_copy|aten::(cat|stack|fill_|zero_)",
    "optimizer": r"adam|lerp|multi_tensor",
    "norms": r"norm",
    "pointwise and sums": r"elementwise|reduce|aten::(mul|add|sub|div|neg|pow|sum|mean|exp|log|gelu|silu|relu)",
}


def make_text(path: Path, megabytes: float) -> None:
    """Words of a fixed vocabulary of 100,000, the frequent ones often (Zipf), from a seed."""
    source = random.Random(0)
    parts = [f"{a}{b}" for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "is", "ol")]
    words = ["".join(source.choices(parts, k=2 + number % 3)) for number in range(100_000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            file.write(" ".join(source.choices(words, weights, k=2000)) + ".\n")


def command(options: argparse.Namespace, corpus: Path, run: Path) -> list[str]:
    """`ownlm` and its arguments."""
    words = [
        "pretrain",
        str(corpus),
        "-o",
        str(run),
        "--size",
        options.size,
        "--context",
        str(options.context),
    ]
    words += ["--device", "cpu" if options.cpu else "cuda", "--dtype", options.dtype]
    words += ["--max-steps", str(options.steps), "--eval-steps", str(options.steps), "--save-steps", "0"]
    words += ["--allow-overlap"]  # the text is made of few words, and no figure of the model is looked at
    if options.rows:
        words += ["--per-device-train-batch-size", str(options.rows)]
    return words


def profiled(words: list[str], first: int, options: argparse.Namespace) -> profile:
    """Run the command in this process; steps from `first` on are looked at by torch.profiler, three at most."""
    from ownlm.cli import main

    activities = [ProfilerActivity.CPU] + ([] if options.cpu else [ProfilerActivity.CUDA])
    profiler = profile(activities=activities)
    train_step = Trainer.train_step

    def watched(trainer: Trainer) -> dict[str, Any]:
        if trainer.step == first:
            profiler.start()
        values = train_step(trainer)
        if trainer.step == min(first + 3, options.steps):
            if not options.cpu:
                torch.cuda.synchronize()
            profiler.stop()
        return values

    Trainer.train_step = watched  # type: ignore[method-assign, assignment]
    try:
        if code := main(words):
            sys.exit(code)
    finally:
        Trainer.train_step = train_step  # type: ignore[method-assign]
    return profiler


def shares(profiler: profile, options: argparse.Namespace) -> dict[str, float]:
    """Kind → share of the time: of operators on a CPU, of kernels on a GPU (an operator's time is its kernels')."""
    attribute = "self_cpu_time_total" if options.cpu else "self_device_time_total"
    sums: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        if (event.device_type.name == "CPU") != options.cpu or event.is_user_annotation:
            continue
        kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key, re.I)), "the rest")
        sums[kind] += getattr(event, attribute)
    whole = sum(sums.values()) or 1.0
    return {kind: time / whole for kind, time in sorted(sums.items(), key=lambda entry: -entry[1])}


def peak_memory(options: argparse.Namespace) -> int:
    """Bytes: the allocator's peak on a GPU, the process's peak on a CPU."""
    if not options.cpu:
        return torch.cuda.max_memory_allocated()
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare, train and time, train and look; the line for RESULTS.md."""
    make_text(folder / "text.txt", options.megabytes)
    corpus = folder / "corpus"
    ownlm = [sys.executable, "-m", "ownlm"]
    size = ["--vocab-size", str(options.vocab_size)]
    subprocess.run([*ownlm, "prepare", str(folder / "text.txt"), "-o", str(corpus), *size, "-q"], check=True)
    rate = max(
        matmul_rate(options.dtype, n, device="cpu" if options.cpu else "cuda")
        for n in ((512, 1024) if options.cpu else (4096, 8192))
    )
    started = time.monotonic()
    subprocess.run([*ownlm, *command(options, corpus, folder / "run")], check=True)
    whole = time.monotonic() - started
    speeds = [s["tokens_per_second"] for s in read_log(folder / "run/log.jsonl") if s["kind"] == "step"]
    speed = statistics.median(speeds[min(options.warmup, len(speeds) - 1) :])
    config = load_config(folder / "run")
    plan = json.loads((folder / "run/run.json").read_text())["plan"]
    first = min(options.warmup, options.steps - 1)
    profiler = profiled(command(options, corpus, folder / "seen"), first, options)
    print(profiler.key_averages().table(sort_by="self_cpu_time_total" if options.cpu else "self_device_time_total",
                                        row_limit=25, max_name_column_width=60))  # fmt: skip
    return {
        "bench": "train_gpu", "device": cpu_name() if options.cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__, "size": options.size, "parameters": config.num_parameters(),
        "vocabulary": config.vocab_size, "context": options.context, "dtype": options.dtype,
        "rows": plan["per_device_train_batch_size"], "micro_batches": plan["gradient_accumulation_steps"],
        "steps": len(speeds), "whole_command_seconds": round(whole, 1), "first_step_seconds":
        round(plan["tokens_per_step"] / speeds[0], 2), "tokens_per_second": round(speed),
        "matmul_tflops": round(rate / 1e12, 2), "mfu": round(speed * config.flops_per_token(options.context) / rate, 4),
        "peak_memory_gb": round(peak_memory(options) / 1e9, 2),
        "shares": {kind: round(share, 4) for kind, share in shares(profiler, options).items()},
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="124M")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=10, help="steps that are not counted")
    parser.add_argument("--rows", type=int, help="rows of a micro-batch; default: what pretrain chooses")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--vocab-size", type=int, help="default 50,304; 512 with --cpu")
    parser.add_argument("--megabytes", type=float, help="of text; default 30; 0.3 with --cpu")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU")
    options = parser.parse_args()
    options.vocab_size = options.vocab_size or (512 if options.cpu else 50_304)
    options.megabytes = options.megabytes or (0.3 if options.cpu else 30.0)
    if not options.cpu and not torch.cuda.is_available():
        print("torch sees no CUDA GPU here.\nTry: python bench/train_gpu.py --cpu --size 1M --steps 3", file=sys.stderr)  # fmt: skip
        sys.exit(3)
    with tempfile.TemporaryDirectory() as folder:
        line = measure(options, Path(folder))
    for kind, share in line["shares"].items():
        print(f"{kind:18} {share:6.1%}")
    print(f"\n{line['device']}: {line['tokens_per_second']:,} tokens/s, MFU {line['mfu']:.1%} of {line['matmul_tflops']} TFLOP/s, "
          f"peak memory {line['peak_memory_gb']} GB, first step {line['first_step_seconds']} s\n")  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
