"""Training speed of a 12M GPT-2-shaped model: ours beside transformers' Trainer, tokens a second and share of a matmul.

    ownlm prepare books/train.jsonl.xz -o corpus --vocab-size 4096 --validation none    # no pass over it at the end
    pip install --no-deps -c constraints.txt accelerate psutil      # Trainer asks for them; ownlm does not
    python bench/train_speed.py corpus [--rounds 3] [--steps 30]

6 layers, 384 wide, 6 heads, context 256, batch 16, the vocabulary of the corpus. Each program is a process of its own,
in turn, with the same threads:
    fp32      Trainer with its defaults (GPT2LMHeadModel, AdamW)
    bf16      Trainer, bf16=True
    compiled  Trainer, bf16=True, torch_compile=True; the seconds to the end of its first step are shown apart
    ownlm     `ownlm pretrain … --architecture gpt2`, its seconds a step from log.jsonl
Trainer's dropout is set to 0, which makes it quicker and equals ours; it saves and reports nothing. A round's figure is
the median step after the warm-up; the table has the median round. Flops a token: 6 a weight of a matrix, and attention
(`ModelConfig.flops_per_token`), for all programs. MFU is their rate divided by the best matrix product measured in the
same round, over several forms and in the dtype of the row.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus
from ownlm.machine.cpu import bf16_pays, cpu_name, num_cores
from ownlm.model.checkpoint import load_config
from ownlm.training.log import read_log

LAYERS, WIDTH, HEADS, CONTEXT, ROWS = 6, 384, 6, 256, 16
TRAINERS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": True},
    "compiled": {"bf16": True, "torch_compile": True},
}
# Rows, inner, columns: the products of this model's step, and cubes.
FORMS = [(4096, 384, 1536), (4096, 1536, 384), (4096, 384, 4096), (1024, 1024, 1024), (2048, 2048, 2048)]


def trainer_steps(name: str, corpus: Path, steps: int) -> list[float]:
    """Seconds from the start of training to the end of each step, by Trainer."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    opened = Corpus.open(corpus)
    config = GPT2Config(
        vocab_size=opened.tokenizer.vocab_size, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    batches = Batches(opened.split("train"), CONTEXT, ROWS, 0)
    rows = [row[:CONTEXT].tolist() for step in range(steps) for row in batches.step(step)]
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter() - self.start)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=ROWS, use_cpu=True, save_strategy="no",
            report_to="none", disable_tqdm=True, dataloader_pin_memory=False, **TRAINERS[name],
        )  # fmt: skip
        data = [{"input_ids": row, "labels": row} for row in rows]
        Trainer(GPT2LMHeadModel(config), arguments, train_dataset=data, callbacks=[Clock()]).train()
    return times


def best_time(work: Callable[[], None], seconds: float = 0.5) -> float:
    """The quickest of the repetitions that a time holds; the first one is not counted."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def matmul_rates() -> dict[str, tuple[float, str]]:
    """dtype → (FLOP/s, form) of the quickest of the forms x[rows, inner] @ w[columns, inner].T."""
    found: dict[str, tuple[float, str]] = {}
    for dtype in (torch.float32, torch.bfloat16) if bf16_pays() else (torch.float32,):
        rates = []
        for rows, inner, columns in FORMS:
            x, w = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
            out = torch.empty(rows, columns, dtype=dtype)

            def multiply(x: torch.Tensor = x, w: torch.Tensor = w, out: torch.Tensor = out) -> None:
                torch.mm(x, w.T, out=out)

            rate = 2 * rows * inner * columns / best_time(multiply)
            rates.append((rate, f"[{rows}, {inner}] @ [{columns}, {inner}].T"))
        found[str(dtype).removeprefix("torch.")] = max(rates)
    return found


def measured_alone(name: str, options: argparse.Namespace) -> Any:
    """What this script prints when it is started as the process of one program."""
    command = [
        sys.executable,
        __file__,
        str(options.corpus),
        "--program",
        name,
        "--steps",
        str(options.steps),
    ]
    command += ["--warmup", str(options.warmup), "--threads", str(options.threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(options: argparse.Namespace, dtype: str, folder: Path) -> tuple[list[float], float]:
    """(seconds of each step, flops a token) of `ownlm pretrain`."""
    run = folder / f"run-{dtype}"
    command = [sys.executable, "-m", "ownlm", "pretrain", str(options.corpus), "-o", str(run), "--overwrite"]
    command += ["--architecture", "gpt2", "--size", "10M", "--context", str(CONTEXT), "--dtype", dtype]
    command += [
        word for field in (f"num_hidden_layers={LAYERS}", f"hidden_size={WIDTH}") for word in ("--set", field)
    ]
    command += ["--per-device-train-batch-size", str(ROWS), "--max-steps", str(options.steps)]
    command += ["--save-steps", "0", "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ownlm ended with {done.returncode}:\n{done.stderr[-2000:]}")
    lines = [line for line in read_log(run / "log.jsonl") if line["kind"] == "step"]
    tokens = ROWS * CONTEXT
    return [tokens / line["tokens_per_second"] for line in lines], load_config(run).flops_per_token(CONTEXT)


def one_round(
    options: argparse.Namespace, folder: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[float, str]], float]:
    """(program → its figures, matmul rates, flops a token)."""
    rates = {name: (rate, form) for name, (rate, form) in measured_alone("matmul", options).items()}
    found: dict[str, dict[str, Any]] = {}
    for name, settings in TRAINERS.items():
        if settings.get("bf16") and "bfloat16" not in rates:
            continue
        ends = measured_alone(name, options)
        steps = [later - earlier for earlier, later in pairwise(ends)]
        dtype = "bfloat16" if settings.get("bf16") else "float32"
        found[f"Trainer {name}"] = {"dtype": dtype, "steps": steps, "first": ends[0]}
    for dtype in rates:
        steps, flops = ours(options, dtype, folder)
        found[f"ownlm {dtype}"] = {"dtype": dtype, "steps": steps[1:], "first": steps[0]}
    for row in found.values():
        row["tokens_per_second"] = ROWS * CONTEXT / statistics.median(row["steps"][options.warmup :])
        row["mfu"] = row["tokens_per_second"] * flops / rates[row["dtype"]][0]
    return found, rates, flops


def main() -> None:
    """Measure all programs, or (--program) be one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5, help="steps that are not counted, after the first")
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--program", choices=["matmul", *TRAINERS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < options.warmup + 2:
        parser.error(f"--steps is {options.steps}; it must be above --warmup + 1")
    torch.set_num_threads(options.threads)
    if options.program:
        alone = options.program == "matmul"
        print(
            json.dumps(
                matmul_rates() if alone else trainer_steps(options.program, options.corpus, options.steps)
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        rounds = [one_round(options, Path(folder)) for _ in range(options.rounds)]
    report(options, rounds)


def report(options: argparse.Namespace, rounds: list[Any]) -> None:
    """The table and one line for RESULTS.md."""
    vocabulary, flops = Corpus.open(options.corpus).tokenizer.vocab_size, rounds[0][2]
    print(f"{cpu_name()}, {options.threads} threads, torch {torch.__version__}, {options.rounds} rounds")
    print(f"vocabulary {vocabulary:,}; {flops / 1e6:.1f} MFLOP a token")
    for dtype in rounds[0][1]:
        rate, form = max(found[1][dtype] for found in rounds)
        print(f"matmul {dtype}: {rate / 1e9:,.0f} GFLOP/s, {form}")
    print(
        f"\n{'program':18} {'tokens/s':>9} {'rounds':>26} {'MFU':>6} {'first step':>11} {'× Trainer fp32':>15}"
    )
    rows: dict[str, Any] = {}
    for name in rounds[0][0]:
        each = [found[0][name] for found in rounds]
        speeds = [row["tokens_per_second"] for row in each]
        ratio = statistics.median(
            found[0][name]["tokens_per_second"] / found[0]["Trainer fp32"]["tokens_per_second"]
            for found in rounds
        )
        rows[name] = {
            "tokens_per_second": round(statistics.median(speeds)),
            "mfu": round(statistics.median(row["mfu"] for row in each), 4),
            "first_step_seconds": round(statistics.median(row["first"] for row in each), 2),
            "ratio_to_trainer_fp32": round(ratio, 3),
        }
        listed = " ".join(f"{speed:,.0f}" for speed in speeds)
        mfu, first = rows[name]["mfu"], rows[name]["first_step_seconds"]
        print(
            f"{name:18} {rows[name]['tokens_per_second']:9,} {listed:>26} {mfu:6.1%} {first:9.1f} s {ratio:15.2f}"
        )
    rates = {
        dtype: max(found[1][dtype] for found in rounds)[0] / 1e9 for dtype in rounds[0][1]
    }  # the best of all rounds
    line = {
        "bench": "train_speed", "cpu": cpu_name(), "threads": options.threads, "torch": torch.__version__,
        "vocabulary": vocabulary, "matmul_gflops": rates, "rows": rows,
    }  # fmt: skip
    print("\n" + json.dumps(line))


if __name__ == "__main__":
    main()
