"""What a run says that memory ran out on: what was predicted and used, what would need less, how to go on."""

from __future__ import annotations

import re
import shlex
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, is_out_of_memory
from ownlm.machine.cpu import ProcessMemory, process_memory
from ownlm.training.checkpoint import checkpoints
from ownlm.training.memory_fit import Case, proposals, remedy

# Of what the step had got, or was predicted to need, when it failed: a change must need clearly less than either.
BUDGET_SHARE = 0.8


@contextmanager
def told(
    case: Case,
    run: Path,
    before: ProcessMemory,
    resume: str | None = None,
    step: Callable[[], int] = lambda: 0,
) -> Iterator[None]:
    """Inside it, memory that runs out ends as `explained`; `step` gives the last whole step."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise explained(error, case, run, step(), resume, before) from None


def explained(
    error: BaseException, case: Case, run: Path, step: int, resume: str | None, before: ProcessMemory
) -> OwnlmError:
    """The error in words.

    Args:
        step: the last whole one.
        resume: the command that goes on with the run; None when it had not begun.
        before: what the process held when nothing was built yet.
    """
    refused = _refused_bytes(str(error))
    used = _used(case, before)
    traceback.clear_frames(error.__traceback__)  # what the step held, so that there is memory for words
    needed = case.needed
    budget = BUDGET_SHARE * (min(needed, used) if used else needed)
    another = f" when another {out.human_bytes(refused)} could not be had" if refused else ""
    in_use = f"{out.human_bytes(used)} were allocated{another}" if used else f"memory ran out{another}"
    steps = case.plan.max_steps
    when = f"at step {min(step + 1, steps):,} of {steps:,}" if steps else "before step 1"
    return OwnlmError(
        f"out of memory {when}: {out.human_bytes(needed)} were predicted, {in_use}.",
        where=run,
        why=f"{_kept(run)}{proposals(case, budget)}",
        do=_command(case, run, resume, budget),
    )


def _refused_bytes(message: str) -> float:
    """Bytes of the allocation that failed, as torch says them; 0 when it does not."""
    found = re.search(r"tried to allocate ([\d.]+) ?(bytes|KiB|MiB|GiB)", message, re.IGNORECASE)
    units = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    return float(found[1].rstrip(".")) * units[found[2].lower()] if found else 0.0


def _used(case: Case, before: ProcessMemory) -> int:
    """The most that the run held at once; 0 when the system does not say."""
    if case.plan.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    now = process_memory()
    return max(0, now.peak - before.now, now.allocated - before.allocated)


def _kept(run: Path) -> str:
    kept = checkpoints(run)
    return f"The checkpoint {kept[-1]} is kept." if kept else "There was no checkpoint yet."


def _command(case: Case, run: Path, resume: str | None, budget: float) -> str:
    """The command that goes on with the run in less memory, else one that begins another."""
    words = remedy(case, budget, going_on=True) if resume else ""
    if resume and words:
        return f"{resume} {words}"
    corpus, output = (
        shlex.quote(str(case.settings["corpus"])),
        shlex.quote(f"{run}-2" if resume else str(run)),
    )
    words = remedy(case, budget)
    if words:
        return f"ownlm pretrain {corpus} -o {output} … {words}"
    return (
        f"end other programs, then: {resume}"
        if resume
        else "end other programs, or a machine with more memory"
    )
