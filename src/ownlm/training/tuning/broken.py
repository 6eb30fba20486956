"""What a fine-tuning run that ends before its time says: what is kept, and the commands that go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ownlm.console.errors import Interrupted, OwnlmError, is_disk_full, is_out_of_memory
from ownlm.training.checkpoint import checkpoints
from ownlm.training.diverged import set_aside
from ownlm.training.loop import Trainer
from ownlm.training.watchdog import Diverged


@contextmanager
def told(run: Path, trainer: Trainer, content: Mapping[str, Any], resume: str) -> Iterator[None]:
    """Inside it, what ends a run too early is said in words.

    Args:
        run: its folder. content: its run.json.
        resume: the command that goes on with it.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise _broken_off(run, trainer, content, resume) from None
    except Diverged as error:
        raise _diverged(error, run, trainer, content, resume) from None
    except Exception as error:
        if is_disk_full(error):
            where = getattr(error, "filename", None) or run
            do = f"free some space, then: {resume}"
            raise _broken(run, trainer, content, "the disk is full", where, do) from None
        if is_out_of_memory(error):
            do = _in_less_memory(trainer, content)
            raise _broken(run, trainer, content, "out of memory", run, do) from None
        raise


def _kept(run: Path) -> str:
    kept = checkpoints(run)
    return f"The checkpoint {kept[-1]} is whole." if kept else "There was no checkpoint yet."


def _broken(
    run: Path, trainer: Trainer, content: Mapping[str, Any], what: str, where: object, do: str
) -> OwnlmError:
    if content["finished"]:
        stopped, why = "the model is written, its figures or the report are missing", ""
    else:
        stopped = f"training stopped after step {trainer.step:,} of {trainer.plan.max_steps:,}"
        why = _kept(run)
    return OwnlmError(f"{what}; {stopped}.", where=where, why=why, do=do)


def _broken_off(run: Path, trainer: Trainer, content: Mapping[str, Any], resume: str) -> Interrupted:
    """What a second Ctrl-C left, or one after the last step."""
    if content["finished"]:
        return Interrupted(
            "interrupted after training; the model is written, its figures or the report are missing.",
            where=run,
            do=resume,
        )
    return Interrupted(
        f"broken off after step {trainer.step:,} of {trainer.plan.max_steps:,}.", why=_kept(run), do=resume
    )


def _in_less_memory(trainer: Trainer, content: Mapping[str, Any]) -> str:
    plan = trainer.plan
    rows = max(1, plan.per_device_train_batch_size // 2)
    changes: dict[str, Any] = {
        "--per-device-train-batch-size": rows,
        "--gradient-accumulation-steps": -(-plan.rows_per_step // rows),
    }
    words = changed(content["repeat"], changes)
    return words if plan.gradient_checkpointing else f"{words} --gradient-checkpointing"


def _diverged(
    error: Diverged, run: Path, trainer: Trainer, content: Mapping[str, Any], resume: str
) -> OwnlmError:
    """The error with what is kept and how to go on; checkpoints of bad weights are set aside."""
    assert trainer.watchdog is not None
    trouble, found, plan = error.trouble, error.trouble.diagnosis, trainer.plan
    # A weight that is not finite was never saved; finite weights that are bad may have been.
    bad = found.blame == "weights" and not found.beyond_repair
    aside = set_aside(run, trainer.watchdog.last) if bad else []
    said = _kept(run)
    if aside:
        said += f" Renamed, because their weights are bad: {', '.join(map(str, aside))}."
    slower: dict[str, Any] = {"--learning-rate": plan.learning_rate / 2}
    if plan.muon_learning_rate:
        slower["--muon-learning-rate"] = plan.muon_learning_rate / 2
    ways = [changed(content["repeat"], slower)]
    if found.blame != "weights" and not found.beyond_repair and trainer.watchdog.on_divergence == "stop":
        ways.insert(0, f"{resume} --on-divergence skip")
    if found.blame == "precision":
        ways.insert(0, changed(content["repeat"], {"--dtype": "float32"}))
    return OwnlmError(
        f"training diverged at step {trouble.step:,} of {plan.max_steps:,}: {trouble.reason}.",
        where=run,
        why=f"{trouble.words()}\n{said}",
        do="\n or: ".join(ways),
    )


def changed(command: str, options: Mapping[str, Any]) -> str:
    """A command with other values of some options."""
    words = shlex.split(command)
    for option, value in options.items():
        if option in words:
            words[words.index(option) + 1] = str(value)
        else:
            words += [option, str(value)]
    return shlex.join(words)
