"""What a run that its watchdog stopped says: what is kept, and the commands that go on."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ownlm.console.errors import OwnlmError
from ownlm.training.checkpoint import checkpoints
from ownlm.training.diagnosis import Accepted
from ownlm.training.plan import TrainPlan
from ownlm.training.run_folder import program, repeat_command
from ownlm.training.watchdog import Diverged, Watchdog


def explained(
    error: Diverged,
    watchdog: Watchdog,
    plan: TrainPlan,
    run: Path,
    content: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> OwnlmError:
    """The error with what is kept and how to go on; checkpoints of bad weights are set aside.

    Args:
        run: the run folder. content: its run.json.
        defaults: of `pretrain`, by name.
    """
    trouble, blame = error.trouble, error.trouble.diagnosis.blame
    # A weight that is not finite was never saved; finite weights that are bad may have been.
    aside = (
        set_aside(run, watchdog.last) if blame == "weights" and not trouble.diagnosis.beyond_repair else []
    )
    kept = checkpoints(run)
    said = f"The last good checkpoint is {kept[-1]}." if kept else "There is no good checkpoint yet."
    if aside:
        said += f" Renamed, because their weights are bad: {', '.join(map(str, aside))}."
    start = kept[-1] if kept else None
    ways = [_with_changes(_lower_rates(plan), plan, run, start, content, defaults)]
    corpus = shlex.quote(str(content["settings"]["corpus"]))
    resume = f"{program(plan.world_size)} pretrain {corpus} -o {shlex.quote(str(run))} --resume"
    if blame != "weights" and watchdog.on_divergence == "stop":
        ways.insert(0, f"{resume} --on-divergence skip")
    if trouble.diagnosis.beyond_repair and kept and _step_of(kept[-1]) >= (watchdog.last_step or 1):
        # The weights were sound when they were saved, after the last update that was made.
        ways.insert(0, resume)
    if blame == "precision":
        ways.insert(0, _with_changes({"dtype": "float32"}, plan, run, start, content, defaults))
    return OwnlmError(
        f"training diverged at step {trouble.step:,} of {plan.max_steps:,}: {trouble.reason}.",
        where=run,
        why=f"{trouble.words()}\n{said}",
        do="\n or: ".join(ways),
    )


def set_aside(run: Path, last: Accepted | None) -> list[Path]:
    """Rename the checkpoints that hold the weights in memory, so that --resume does not take them.

    Args:
        last: the newest accepted step; no update was made after its own.

    Returns:
        Their new paths.
    """
    moved = []
    for path in checkpoints(run):
        if _step_of(path) >= (last.step if last else 0):
            aside = path.with_name(path.name + "-diverged")
            shutil.rmtree(aside, ignore_errors=True)  # of an earlier attempt
            moved.append(path.replace(aside))
    return moved


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _lower_rates(plan: TrainPlan) -> dict[str, Any]:
    return {"learning_rate": plan.learning_rate / 2, "muon_learning_rate": plan.muon_learning_rate / 2}


def _with_changes(
    changes: Mapping[str, Any],
    plan: TrainPlan,
    run: Path,
    start: Path | None,
    content: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> str:
    """The command that trains the rest of the run from a checkpoint, or all of it, with other settings."""
    settings, size = {**content["settings"], **changes}, content["model"]["size"]
    if start is not None:
        of_new_models = {name: defaults[name] for name in ("set", "architecture", "warmup_steps")}
        settings |= {**of_new_models, "from_": str(start)}
        plan = dataclasses.replace(plan, max_steps=plan.max_steps - _step_of(start))
    with_defaults = {name: (value, defaults[name]) for name, value in settings.items() if name in defaults}
    corpus, another = Path(settings["corpus"]), Path(f"{run}-2")
    size = "auto" if start is not None or size == "given" else size
    return repeat_command(corpus, another, with_defaults, plan, size)
