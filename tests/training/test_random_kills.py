"""Twenty kills at any moment (a step, a checkpoint being written, the start), and the run is still the same."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.training.real_runs import assert_same_run

from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus
from ownlm.training.log import read_log

KILLS, STEPS, CONTEXT, ROWS = 20, 240, 32, 8
SETTINGS = ["--size", "1M", "--context", str(CONTEXT), "--set", "num_hidden_layers=2", "--set", "hidden_size=64",
            "--set", "intermediate_size=128", "--per-device-train-batch-size", str(ROWS), "--dtype", "float32",
            "--threads", "1", "--save-steps", "3"]  # fmt: skip


def last_step(run: Path) -> int:
    return max((line["step"] for line in read_log(run / "log.jsonl") if line["kind"] == "step"), default=0)


def killed_after(command: list[str], run: Path, step: int, delay: float) -> None:
    """Start, and kill `delay` seconds after the log shows the step."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while last_step(run) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    ended = process.poll()
    process.kill()
    process.wait()
    assert ended is None, f"the run ended by itself with {ended}"


@pytest.mark.long
def test_twenty_random_kills(corpus: Path, tmp_path: Path) -> None:
    assert Batches(Corpus.open(corpus).split("train"), CONTEXT, ROWS, 0).blocks < STEPS * ROWS / 2
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    source = random.Random(seed)
    ownlm = [sys.executable, "-m", "ownlm", "pretrain", str(corpus)]
    options = ["--max-steps", str(STEPS), *SETTINGS]
    whole, run = tmp_path / "whole", tmp_path / "run"
    subprocess.run([*ownlm, "-o", str(whole), *options], check=True, capture_output=True)
    more: list[str] = []
    for step in sorted(source.sample(range(1, STEPS * 3 // 4), KILLS)):
        killed_after([*ownlm, "-o", str(run), *options, *more], run, step, source.uniform(0, 0.05))
        assert not (run / "model.safetensors").exists()
        more = ["--resume"]
    subprocess.run([*ownlm, "-o", str(run), *options, *more], check=True, capture_output=True)
    assert_same_run(run, whole)
