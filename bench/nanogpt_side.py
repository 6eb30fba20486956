"""nanoGPT beside us: its own train.py in a folder of its own, on data we wrote for it, and its model for our scorer.

Used by time_to_loss.py. No line of nanoGPT is in this repository: a checkout is copied from where you put it.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

COPIED = ("train.py", "model.py", "configurator.py", "config/train_shakespeare_char.py")
TRIAL_STEPS = 10
DATASET = "own"
HOW_TO_GET = "git clone https://github.com/karpathy/nanoGPT && git -C nanoGPT checkout 3adf61e"


def stage(checkout: Path, folder: Path) -> None:
    """Copy the programs of a checkout into the work folder, where data and models of this benchmark lie."""
    for name in COPIED:
        if not (checkout / name).is_file():
            sys.exit(f"{checkout / name} is missing: --nanogpt takes a checkout.\nTry: {HOW_TO_GET}")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkout / name, folder / name)


def write_data(folder: Path, train: np.ndarray, validation: np.ndarray, vocab_size: int) -> None:
    """train.bin, val.bin (uint16) and meta.pkl as nanoGPT's prepare.py leaves them.

    Args:
        train, validation: token ids [tokens].
        vocab_size: below 65,536.
    """
    data = folder / "data" / DATASET
    data.mkdir(parents=True, exist_ok=True)
    train.astype(np.uint16).tofile(data / "train.bin")
    validation.astype(np.uint16).tofile(data / "val.bin")
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))


def shakespeare_options(iterations: int) -> dict[str, Any]:
    """The README's command for a laptop's CPU ("I only have a macbook"); `iterations` is 2000 there."""
    return {
        "eval_iters": 20, "log_interval": 1, "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128,
        "max_iters": iterations, "lr_decay_iters": iterations, "dropout": 0.0,
    }  # fmt: skip


def book_options(layers: int, width: int, iterations: int) -> dict[str, Any]:
    """A model for text in tokens: fp32, batch 16 × 256, 1e-3 → 1e-4 (AdamW's betas as in its character config).

    Heads are 64 wide as in all of nanoGPT's configs, 32 in the narrowest as in its README's smallest model. The only
    evaluation that costs time is the one at the end, two batches, which writes the model.
    """
    return {
        "dtype": "float32", "eval_interval": iterations, "eval_iters": 1, "always_save_checkpoint": True,
        "log_interval": 10, "block_size": 256, "batch_size": 16, "n_layer": layers,
        "n_head": width // (32 if width <= 128 else 64), "n_embd": width, "learning_rate": 1e-3, "min_lr": 1e-4,
        "warmup_iters": min(100, max(1, iterations // 10)), "max_iters": iterations, "lr_decay_iters": iterations,
        "dropout": 0.0,
    }  # fmt: skip


def train(folder: Path, out: str, options: dict[str, Any], environment: dict[str, str]) -> float:
    """Run train.py; returns when it was started, seconds since 1970. Its words go to OUT.log."""
    given = {"out_dir": out, "dataset": DATASET, "device": "cpu", "compile": False} | options
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py"]
    command += [f"--{name}={value}" for name, value in given.items()]
    shutil.rmtree(folder / out, ignore_errors=True)
    log = folder / f"{out}.log"
    with log.open("w") as words:
        started = time.time()
        code = subprocess.run(
            command, cwd=folder, env=environment, stdout=words, stderr=subprocess.STDOUT
        ).returncode
    if code:
        sys.exit(f"nanoGPT ended with {code}: {log}\n{log.read_text()[-2000:]}")
    return started


def written_at(model: Path) -> float:
    """When a file got its content and name, seconds since 1970."""
    return max(model.stat().st_mtime, model.stat().st_ctime)


def iterations_in(
    seconds: float, layers: int, width: int, folder: Path, environment: dict[str, str]
) -> tuple[int, float]:
    """(iterations, seconds of one) that fill a time, start-up included, measured on a short run outside the clock."""
    options = book_options(layers, width, TRIAL_STEPS) | {"log_interval": 1, "eval_interval": 10**6}
    whole = -train(folder, "trial", options, environment) + time.time()
    times = [
        float(match[1]) / 1000
        for match in re.finditer(r"^iter \d+: .*time ([\d.]+)ms", (folder / "trial.log").read_text(), re.M)
    ][1:]  # the first one holds an evaluation
    one = statistics.median(times)
    return max(TRIAL_STEPS + 1, int((seconds - (whole - sum(times))) / one)), one


class NanoGPT(nn.Module):
    """A trained nanoGPT with the names that our scorer asks a model for."""

    def __init__(self, gpt: Any) -> None:
        super().__init__()
        self.gpt, self.config = gpt, gpt.config
        self.embedding = gpt.transformer.wte
        self.context: int = gpt.config.block_size

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """Final hidden states [B, T, C]."""
        parts = self.gpt.transformer
        x_BTC = parts.wte(ids_BT) + parts.wpe(torch.arange(ids_BT.shape[1]))
        for block in parts.h:
            x_BTC = block(x_BTC)
        normed: Tensor = parts.ln_f(x_BTC)
        return normed

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V]."""
        logits: Tensor = self.gpt.lm_head(hidden)
        return logits


def load(folder: Path, out: str) -> tuple[NanoGPT, int]:
    """(model, iterations it was trained for) of `OUT/ckpt.pt`, read without running what is pickled in it."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks for its module there
    spec.loader.exec_module(module)
    stored = torch.load(folder / out / "ckpt.pt", map_location="cpu", weights_only=True)
    gpt = module.GPT(module.GPTConfig(**stored["model_args"]))
    gpt.load_state_dict(stored["model"])
    return NanoGPT(gpt).eval(), int(stored["iter_num"])
