"""Runs in processes of their own, which a signal may end at a given moment, and what makes two runs the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ownlm.training.checkpoint import checkpoints
from ownlm.training.log import read_log

# Windows has no other way to end a process, and calls it SIGTERM.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
CLOCK = ("seconds", "tokens_per_second", "mfu")  # what of a log line is measured, and so never the same twice

# A server that has torch loaded forks each process in milliseconds; its own state is that of a new process.
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_context = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
if _FORKS:
    # torch's optimizers import torch._dynamo when the first one is made, which takes a second.
    _context.set_forkserver_preload(["ownlm.cli", "ownlm.training.session", "torch._dynamo"])


def run_command(
    arguments: list[str], words: Path, *, at: int | None = None, during: str = "step", sent: int = KILL
) -> int:
    """Run `ownlm ARGUMENTS` as a process; returns its exit code, minus the signal where one ended it.

    Args:
        words: the file that its stderr goes to.
        at: the step at which the process sends itself the signal; None: never.
        during: "step": between the gradients and the update; "checkpoint": half of the optimizer's file is written;
            "model": half of the finished model is written.
        sent: the signal.
    """
    process = _context.Process(target=_command, args=(arguments, words, at, during, sent))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def _command(arguments: list[str], words: Path, at: int | None, during: str, sent: int) -> None:
    for number in (1, 2):
        os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if at is not None:
        {"step": _end_in_step, "checkpoint": _end_in_checkpoint, "model": _end_in_model}[during](at, sent)
    from ownlm.cli import main

    sys.exit(main(arguments))


def _end_in_step(at: int, sent: int) -> None:
    from ownlm.training.loop import Trainer
    from ownlm.training.optimizer import Optimizer

    train_step, update = Trainer.train_step, Optimizer.step

    def watched(trainer: Trainer) -> Any:
        def ends(optimizer: Optimizer, factor: float) -> None:
            if trainer.step + 1 == at:
                os.kill(os.getpid(), sent)
            update(optimizer, factor)

        Optimizer.step = ends  # type: ignore[method-assign]
        return train_step(trainer)

    Trainer.train_step = watched  # type: ignore[method-assign]


def _end_in_checkpoint(at: int, sent: int) -> None:
    from ownlm.training import checkpoint

    write = checkpoint.save_tensors

    def ends(tensors: Any, path: Path) -> None:
        write(tensors, path)
        if path.parent.name == f"step-{at}.tmp":
            halve(path)
            os.kill(os.getpid(), sent)

    checkpoint.save_tensors = ends


def _end_in_model(at: int, sent: int) -> None:
    from ownlm.model import checkpoint

    save = checkpoint.save_file

    def ends(tensors: Any, path: Path, **more: Any) -> None:
        save(tensors, path, **more)
        if not Path(path).parent.name.startswith("step-"):
            halve(Path(path))
            os.kill(os.getpid(), sent)

    checkpoint.save_file = ends


def halve(path: Path) -> None:
    """What a kill or a full disk leaves of a file."""
    os.truncate(path, path.stat().st_size // 2)


def assert_same_tensors(a: Path, b: Path) -> None:
    """Two safetensors files hold the same names and bits."""
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def assert_same_run(run: Path, whole: Path) -> None:
    """Weights, optimizer state, position and every log line but its clock are those of the other run."""
    assert_same_tensors(run / "model.safetensors", whole / "model.safetensors")
    last, expected = checkpoints(run)[-1], checkpoints(whole)[-1]
    assert last.name == expected.name
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert_same_tensors(last / name, expected / name)
    assert log_without_clock(run) == log_without_clock(whole)


def log_without_clock(run: Path) -> list[dict[str, Any]]:
    """The log's lines (steps, validations, samples, checkpoints) without what is measured."""
    return [
        {name: value for name, value in line.items() if name not in CLOCK}
        for line in read_log(run / "log.jsonl")
    ]
