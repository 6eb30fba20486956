"""What the first of several processes orders, and the others do: build the same trainer, train the same steps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.console import output as out
from ownlm.corpus.shards import Corpus
from ownlm.model.config import ModelConfig
from ownlm.model.families import from_hugging_face, to_hugging_face
from ownlm.training import draft, setup
from ownlm.training.checkpoint import load_checkpoint
from ownlm.training.loop import Trainer
from ownlm.training.memory_fit import recorded_plan
from ownlm.training.parallel import Processes
from ownlm.training.plan import TrainPlan
from ownlm.training.run_folder import Run
from ownlm.training.watchdog import Diverged, Watchdog


@dataclass(frozen=True)
class Order:
    """All that a trainer is made of, beside the corpus.

    Attributes:
        do: "train", or "calibrate" for steps that are only timed.
        run: the run folder.
        start: the model to go on from, or None.
        checkpoint: of this run to go on from, or None.
        on_divergence: as in `Watchdog`.
    """

    do: str
    config: ModelConfig
    plan: TrainPlan
    run: Path
    start: Path | None = None
    checkpoint: Path | None = None
    on_divergence: str = "stop"

    def to_json(self) -> dict[str, Any]:
        """For the other processes."""
        paths = {name: str(path) if path else None for name, path in
                 (("run", self.run), ("start", self.start), ("checkpoint", self.checkpoint))}  # fmt: skip
        said = {"do": self.do, "plan": self.plan.to_json(), "on_divergence": self.on_divergence}
        return said | paths | {"config": to_hugging_face(self.config, {})}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Order:
        """From the first process."""
        start, checkpoint = (
            Path(path) if (path := content[key]) else None for key in ("start", "checkpoint")
        )
        return cls(
            content["do"],
            from_hugging_face(content["config"], "the first process"),
            TrainPlan.from_json(content["plan"]),
            Path(content["run"]),
            start,
            checkpoint,
            content["on_divergence"],
        )


def begin(order: Order, corpus: Corpus, processes: Processes) -> Trainer:
    """Order it of the other processes, and build the trainer of this one, the first."""
    processes.tell(order.to_json())
    return build(order, corpus, processes)


def build(order: Order, corpus: Corpus, processes: Processes) -> Trainer:
    """The trainer of this process, at the step of the checkpoint."""
    trainer = setup.build_trainer(corpus, order.config, order.plan, order.run, order.start, processes)
    if order.do == "train":
        trainer.watchdog = Watchdog(order.on_divergence)
    if order.checkpoint is not None:
        state = load_checkpoint(order.checkpoint, trainer.weights, trainer.optimizer)
        assert trainer.watchdog is not None
        trainer.watchdog.load(state)
        trainer.step, trainer.seconds_before = int(str(state["step"])), float(str(state["seconds"]))
    return trainer


def shared_out(content: Mapping[str, Any], processes: int) -> TrainPlan:
    """The plan in run.json, shared out to as many processes as there are now; a change is said."""
    planned = recorded_plan(content)
    threads = content["settings"]["threads"] or draft.threads_each(processes)
    plan = planned.shared_out(processes, threads)
    if plan is not planned:
        out.say(
            f"The run began with {planned.world_size} and goes on with {processes} processes: the same rows in each step, "
            "the same results up to rounding."
        )
    return plan


def follow(corpus_folder: Path, processes: Processes) -> Run:
    """Do what the first process orders until it is done; returns its run.

    Raises:
        SaidElsewhere: the run ended with an error or an interruption.
    """
    while True:
        content = processes.told()
        if content["do"] == "done":
            return Run(Path(content["run"]), content["content"])
        order = Order.from_json(content)
        trainer = build(order, Corpus.open(corpus_folder), processes)
        if order.do == "calibrate":
            setup.calibrated_steps(trainer, 0.0)
            continue
        with suppress(Diverged):  # in all processes, for they have the same numbers: the first one says it
            trainer.train()


def done(run: Run, processes: Processes) -> Run:
    """Let the other processes go, with the record of the run; returns the run."""
    processes.tell({"do": "done", "run": str(run.path), "content": run.content})
    return run
