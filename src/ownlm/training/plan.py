"""What is decided before step 1, by rules over settings, sizes and CPU flags; written to run.json and read on resume.

The one thing measured is the speed, and only for `--minutes`: it becomes `max_steps` once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ownlm.console.errors import Refused, UsageError
from ownlm.machine.predict import UTILISATION
from ownlm.model.config import ModelConfig

DECAY_SHARE = 0.4  # of the steps: long decays won every time at these sizes (docs/log.md)
WARMUP_STEPS = 20  # Muon's steps have a bounded size, so a short warm-up is enough
EVAL_SHARE = 0.04  # of the training time may go into validation (the promise is 5 %)
EVAL_ROWS = 32  # validation blocks looked at every time, fewer in a run too short for them


@dataclass(frozen=True)
class TrainPlan:
    """A run, decided. `rows_per_step` rows of `context` tokens a step, in micro-batches of `world_size` processes.

    `flops_per_token` is the cost of training on one token, `peak_flops` the matmul rate of all processes, from one
    measured at the start: together they give the model FLOPs utilisation (MFU) of a step. `learning_rate` is AdamW's peak (embeddings,
    head, norms), `muon_learning_rate` that of the matrices. `gradient_checkpointing`: inner values of blocks are computed
    again on the way back instead of kept. `fused`: gradients come from our kernels (fused.py), not from autograd. `compile`:
    blocks go through torch's compiler (compiled.py).
    """

    max_steps: int
    context: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    muon_learning_rate: float
    weight_decay: float
    max_grad_norm: float
    warmup_steps: int
    decay_steps: int
    eval_steps: int
    eval_rows: int
    save_steps: int
    save_total_limit: int
    sample_steps: list[int]
    sample_prompt: str
    seed: int
    dtype: str
    device: str
    threads: int
    flops_per_token: float
    peak_flops: float
    world_size: int = 1
    gradient_checkpointing: bool = False
    fused: bool = False
    compile: bool = False

    @property
    def rows_per_step(self) -> int:
        """Rows of all micro-batches of all processes together."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size

    @property
    def tokens_per_step(self) -> int:
        """Tokens predicted in a step."""
        return self.rows_per_step * self.context

    @property
    def predicted_step_seconds(self) -> float:
        """Seconds of a step by its FLOPs and the matmul rate, when nothing was measured."""
        return self.flops_per_token * self.tokens_per_step / (self.peak_flops * UTILISATION)

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return dataclasses.asdict(self) | {"tokens_per_step": self.tokens_per_step}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainPlan:
        """From run.json."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: content[name] for name in names if name in content})

    def shared_out(self, processes: int, threads: int) -> TrainPlan:
        """The same steps for another number of processes: the fewest equal micro-batches that are no larger than these.

        Args:
            threads: of each process.

        Raises:
            Refused: the rows of a step cannot be shared out equally.
        """
        if processes == self.world_size:
            return self
        rows, rest = divmod(self.rows_per_step, processes)
        if rest:
            possible = [
                count for count in range(1, self.rows_per_step + 1) if self.rows_per_step % count == 0
            ]
            raise Refused(
                f"the {self.rows_per_step:,} rows of a step cannot be shared out equally to {processes} processes.",
                why="A run that goes on keeps its rows a step.",
                do=f"torchrun --nproc-per-node {max(n for n in possible if n <= processes)} -m ownlm pretrain … --resume",
            )
        accumulation = next(
            count
            for count in range(1, rows + 1)
            if rows % count == 0 and rows // count <= self.per_device_train_batch_size
        )
        return dataclasses.replace(
            self,
            world_size=processes,
            per_device_train_batch_size=rows // accumulation,
            gradient_accumulation_steps=accumulation,
            threads=threads,
            # Processes share the cores of a machine, but each has a GPU of its own.
            peak_flops=self.peak_flops * (1 if self.device == "cpu" else processes / self.world_size),
        )

    def with_steps(
        self, max_steps: int, *, warmup_steps: int | None, eval_steps: int | None, save_steps: int | None
    ) -> TrainPlan:
        """The plan for a number of steps: everything that follows from it."""
        if max_steps < 0:
            raise UsageError(f"max_steps is {max_steps}.", where="--max-steps")
        if warmup_steps is not None and warmup_steps >= max(max_steps, 1):
            raise UsageError(f"{warmup_steps} warm-up steps in a run of {max_steps}.", where="--warmup-steps")
        warmup = min(WARMUP_STEPS, max_steps // 10) if warmup_steps is None else warmup_steps
        # One validation costs a third of a training step a row (forward only), so this keeps it under EVAL_SHARE;
        # one process validates while the others wait.
        rows_each = self.rows_per_step // self.world_size
        least = math.ceil(self.eval_rows / (3 * EVAL_SHARE * rows_each))
        rows = self.eval_rows
        if eval_steps is None:
            eval_steps = max(least, max_steps // 20)
            looks = 2 + (max_steps - 1) // eval_steps  # the first and the last one included
            rows = max(1, min(rows, int(3 * EVAL_SHARE * rows_each * max_steps / looks)))
        return dataclasses.replace(
            self,
            eval_rows=rows,
            max_steps=max_steps,
            warmup_steps=warmup,
            decay_steps=max(1, min(max_steps - warmup, round(max_steps * DECAY_SHARE))),
            eval_steps=eval_steps,
            # A kill costs at most a tenth of the run; saving takes well under a second at these sizes.
            save_steps=max(50, math.ceil(max_steps / 10)) if save_steps is None else save_steps,
        )


def rows_for(
    tokens_per_step: int, context: int, micro_batch: int | None, accumulation: int | None, processes: int = 1
) -> tuple[int, int]:
    """(micro-batch rows, accumulation steps) of each process: the given numbers, else the rule's tokens shared out.

    Raises:
        UsageError: numbers below 1. Refused: rows that cannot be shared out equally to the processes.
    """
    for name, value in (
        ("per-device-train-batch-size", micro_batch),
        ("gradient-accumulation-steps", accumulation),
    ):
        if value is not None and value < 1:
            raise UsageError(f"{value} is not a positive number.", where=f"--{name}")
    if micro_batch is not None:
        return micro_batch, accumulation or 1
    accumulation = accumulation or 1
    rows = max(1, round(tokens_per_step / context))
    of_all = max(1, rows // accumulation)
    if of_all % processes:
        among = f"{processes} processes" + (f" × {accumulation} micro-batches" if accumulation > 1 else "")
        each, rows = max(1, round(of_all / processes)), of_all * accumulation
        raise Refused(
            f"the {rows:,} {'row' if rows == 1 else 'rows'} of a step cannot be shared out equally to {among}.",
            where="--per-device-train-batch-size",
            do=f"--per-device-train-batch-size {each} for {each * processes * accumulation:,} rows a step",
        )
    return of_all // processes, accumulation


def tokens_per_step_for(config: ModelConfig, planned_seconds: float | None) -> int:
    """Tokens of a batch: small batches make more updates a minute, large ones make Muon's iterations cheap.

    Muon costs about 4.2 · width / tokens of a step's arithmetic, so the batch grows with the width; measured on
    books and source code at 2 to 10 minutes (docs/log.md).
    """
    tokens = 2048 if config.hidden_size <= 192 else 4096 if config.hidden_size <= 384 else 8192
    if planned_seconds is not None and planned_seconds > 1800:
        tokens *= 2
    return tokens if config.hidden_size < 768 else 32_768


def steps_for(
    *,
    max_steps: int | None,
    tokens: int | None,
    epochs: float | None,
    tokens_per_step: int,
    tokens_per_epoch: int,
) -> int | None:
    """The number of steps that was asked for, or None when only minutes were."""
    if max_steps is not None:
        return max_steps
    if tokens is not None:
        return math.ceil(tokens / tokens_per_step)
    if epochs is not None:
        return max(1, round(epochs * tokens_per_epoch / tokens_per_step))
    return None


def one_length(**given: object) -> None:
    """At most one of the ways to say how long to train."""
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        options = " and ".join("--" + name.replace("_", "-") for name in named)
        raise UsageError(f"{options} all say how long to train.", do="give one of them")


MOST_STEPS = 10**12  # more is a slip of the finger, and no machine makes them

LEAST: dict[str, float] = {
    "max_steps": 0, "context": 2, "threads": 1, "warmup_steps": 0, "eval_steps": 0, "save_steps": 0, "save_total_limit": 1,
    "logging_steps": 0, "learning_rate": 0.0, "muon_learning_rate": 0.0, "weight_decay": 0.0, "max_grad_norm": 0.0,
    "eval_rows": 0,
}  # fmt: skip


MOST_THREADS = 1024  # tens of thousands end in a crash of the thread library, without a word


def refuse_numbers(settings: Mapping[str, Any]) -> None:
    """Refuse numbers below the least that means something; None stands for a default."""
    for name, least in LEAST.items():
        value = settings.get(name)
        if value is not None and value < least:
            where = "--" + name.replace("_", "-")
            raise UsageError(f"{value:g} is not possible; it must be at least {least:g}.", where=where)
    if settings["threads"] is not None and settings["threads"] > MOST_THREADS:
        raise UsageError(
            f"{settings['threads']:,} threads are not possible; it must be at most {MOST_THREADS:,}.",
            where="--threads",
            why="More than the cores only wait for each other.",
        )


def parse_count(text: str, where: str) -> int:
    """'10M' -> 10,000,000; also k, B and plain digits."""
    units = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
    stripped = text.strip().lower().replace("_", "").replace(",", "")
    factor = units.get(stripped[-1:], 1)
    number = stripped[:-1] if stripped[-1:] in units else stripped
    try:
        count = int(float(number) * factor)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a number of tokens.", where=where, do=f"{where} 10M") from None
    if count < 1:
        raise UsageError(f"{text!r} tokens is nothing to train on.", where=where)
    return count
