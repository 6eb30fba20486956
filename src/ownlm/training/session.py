"""A pretraining run from settings to the finished folder: plan, train, write the model, score it, report."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ownlm.console import output as out
from ownlm.console.errors import (
    Interrupted,
    OwnlmError,
    Refused,
    UsageError,
    is_disk_full,
)
from ownlm.console.lock import only_one
from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus
from ownlm.machine.cpu import process_memory
from ownlm.model.checkpoint import load_config, load_model, save_model
from ownlm.model.config import ModelConfig
from ownlm.model.transformer import Transformer
from ownlm.training import draft, out_of_memory, preflight, preflight_shown, refusals, setup, trackers
from ownlm.training.checkpoint import checkpoints, token_ids
from ownlm.training.diverged import explained
from ownlm.training.follow import Order, begin, shared_out
from ownlm.training.fused import why_not
from ownlm.training.live import LiveLine
from ownlm.training.log import cut_log
from ownlm.training.loop import Trainer
from ownlm.training.memory import free_memory
from ownlm.training.memory_fit import Case, changed_with_resume, check_memory
from ownlm.training.parallel import LostProcess, Processes
from ownlm.training.plan import MOST_STEPS, TrainPlan, refuse_numbers
from ownlm.training.record import announce, describe, prepare_folder
from ownlm.training.run_folder import (
    Run,
    claim_output,
    full_disk_told,
    program,
    read_run,
    refuse_output,
    write_model_card,
    write_run,
)
from ownlm.training.samples import sample
from ownlm.training.watchdog import Diverged

FINISH_SECONDS = 2.0  # writing the model, the card and the last log lines


class Session:
    """One run.

    Args:
        settings: the resolved arguments of the verb, by name.
        defaults: of the verb, by name.
        given: names of the settings that were really given.
        started: `time.monotonic()` of the command's start; `--minutes` counts from there.
        processes: that train together; a session is that of the first.
    """

    trainer: Trainer | None

    def __init__(
        self,
        settings: dict[str, Any],
        defaults: dict[str, Any],
        given: Collection[str],
        started: float,
        processes: Processes,
    ) -> None:
        self.settings, self.defaults, self.given, self.started = settings, defaults, given, started
        self.output, self.processes = Path(settings["output"]), processes
        self.memory_before, self.trainer = process_memory(), None

    def start(self) -> Run:
        """A new run, to its end. All that can be refused is refused before the output folder is touched."""
        settings = self.settings
        length = draft.length(settings)
        refuse_numbers(settings)
        trackers.require(settings["report_to"])
        corpus = Corpus.open(Path(settings["corpus"]))
        refuse_output(self.output, settings["overwrite"])
        refusals.idle_settings(self.given, settings, corpus)
        corpus.verify()
        start = self._start_model(corpus, settings["from_"])
        drafted = draft.draft(settings, corpus, start, length, self.processes.count)
        plan = drafted.plan
        batches = Batches(corpus.split("train"), plan.context, plan.rows_per_step, plan.seed)
        case = Case(drafted.config, plan, settings, drafted.size)
        check_memory(case, free_memory(plan))
        if settings["max_steps"] != 0:
            refusals.training_text(drafted.config, plan, corpus, batches, settings, length.seconds)
        with out_of_memory.told(case, self.output, self.memory_before):
            plan, per_step = self._decided(corpus, drafted, batches, length, start)
        looked = preflight.look(corpus, drafted.config, plan, batches, per_step, settings["allow_overlap"])
        content = describe(settings, self.defaults, self.output, corpus, drafted._replace(plan=plan), looked)
        announce(corpus, drafted.config, plan, drafted.size, batches)
        preflight_shown.show(looked)
        if settings["dry_run"]:
            return Run(self.output, content)
        if start is not None and not per_step:  # a calibration has loaded it
            load_model(start)  # damaged weights are refused before anything is replaced
        self.output.mkdir(parents=True, exist_ok=True)
        with only_one(self.output):
            claim_output(self.output, settings["overwrite"])
            with full_disk_told(self.output):
                prepare_folder(self.output, corpus, drafted.config, content)
            order = Order(
                "train", drafted.config, plan, self.output, start, on_divergence=settings["on_divergence"]
            )
            with self._memory_told(order, content):
                return self._train(self._begun(order, corpus), corpus, content)

    def _decided(
        self, corpus: Corpus, drafted: draft.Draft, batches: Batches, length: draft.Length, start: Path | None
    ) -> tuple[TrainPlan, float]:
        """(the plan with its number of steps, seconds a step or 0.0 when they were not measured)."""
        settings, per_step = self.settings, 0.0
        steps = draft.asked_steps(settings, length, drafted.plan, batches.tokens_per_epoch)
        if not length.chosen:
            out.say(
                f"No length given: training for {draft.DEFAULT_MINUTES:g} minutes (--minutes, --max-steps, --num-train-epochs or --tokens)."
            )
        if steps is None:
            assert length.seconds is not None
            steps, per_step = self._calibrated(corpus, drafted, start, length.seconds)
        if steps > MOST_STEPS:
            raise UsageError(
                f"that would be {steps:,} steps.", do="--max-steps, --minutes or --tokens with less"
            )
        intervals = {name: settings[name] for name in ("warmup_steps", "eval_steps", "save_steps")}
        return draft.with_samples(drafted.plan.with_steps(steps, **intervals), per_step), per_step

    def _calibrated(
        self, corpus: Corpus, drafted: draft.Draft, start: Path | None, seconds: float
    ) -> tuple[int, float]:
        """(max_steps, seconds a step) for a number of seconds, measured on a model that is thrown away."""
        plan = drafted.plan.with_steps(1000, warmup_steps=None, eval_steps=None, save_steps=None)
        trial = begin(Order("calibrate", drafted.config, plan, self.output, start), corpus, self.processes)
        left = seconds - (time.monotonic() - self.started) - min(FINISH_SECONDS, 0.03 * seconds)
        return setup.calibrated_steps(trial, left)

    def resume(self) -> Run:
        """Go on with the unfinished run in the output folder, as if it had never stopped."""
        content = read_run(self.output)
        with only_one(self.output):
            return self._resumed(content)

    def _resumed(self, content: dict[str, Any]) -> Run:
        """`resume`, while no other process can."""
        refusals.other_run(content, self.given, self.settings, self.output)
        settings = refusals.change_with_resume(content, self.given, self.settings, self.defaults)
        trackers.require(settings["report_to"])
        if content.get("finished") and (self.output / "report.html").exists():
            raise UsageError(
                "this run is finished.",
                where=self.output,
                do=f"ownlm pretrain CORPUS --from {self.output} -o another-run",
            )
        corpus = Corpus.open(Path(self.settings["corpus"]))
        if corpus.manifest["hash"] != content["data"]["hash"]:
            raise Refused(
                "the corpus is not the one this run was trained on.",
                where=corpus.path,
                why="Its hash differs from run.json.",
            )
        corpus.verify()
        if content.get("finished"):
            # It was killed after its last step: what is missing is the full pass and the report.
            self._score(load_model(self.output), corpus, content)
            return Run(self.output)
        plan, pieces = changed_with_resume(
            shared_out(content, self.processes.count), self.given, self.settings
        )
        found = checkpoints(self.output)
        config = load_config(found[-1] if found else self.output)
        start = self._start_model(corpus, content["settings"].get("from_")) if not found else None
        last = found[-1] if found else None
        plan, without = _without_kernels(config, plan)
        pieces |= without
        order = Order("train", config, plan, self.output, start, last, settings["on_divergence"])
        with self._memory_told(order, content):
            trainer = self._begun(order, corpus)
            if pieces or plan.world_size != content["plan"].get("world_size", 1):
                changed = {"step": trainer.step, "world_size": plan.world_size, **pieces}
                content.setdefault("resumed", []).append(changed)
            write_run(self.output, content)
            cut = cut_log(self.output / "log.jsonl", trainer.step or -1)
            out.say(
                f"Going on at step {trainer.step:,} of {plan.max_steps:,}"
                + (f" ({cut} later log lines cut)." if cut else ".")
            )
            return self._train(trainer, corpus, content)

    def _start_model(self, corpus: Corpus, name: str | None) -> Path | None:
        """The folder of the model to go on from; None: random weights."""
        if name is None:
            return None
        folder = draft.start_model(name, self.output, corpus)
        if name == "last":  # it will soon mean another run: the repeat command and --resume need its name
            self.settings["from_"] = str(folder)
        return folder

    def _begun(self, order: Order, corpus: Corpus) -> Trainer:
        self.trainer = begin(order, corpus, self.processes)
        return self.trainer

    def _memory_told(self, order: Order, content: dict[str, Any]) -> AbstractContextManager[None]:
        """Inside it, memory that runs out is said in words."""
        case = Case(order.config, order.plan, content["settings"], content["model"]["size"])
        resume, before = self._resume_command(), self.memory_before
        return out_of_memory.told(
            case, self.output, before, resume, lambda: self.trainer.step if self.trainer else 0
        )

    def _train(self, trainer: Trainer, corpus: Corpus, content: dict[str, Any]) -> Run:
        """`_finish`, with a full disk and a break said in words: what is kept, and how to go on."""
        try:
            return self._finish(trainer, corpus, content)
        except KeyboardInterrupt:
            raise self._broken_off(trainer, content) from None
        except Diverged as error:
            assert trainer.watchdog is not None
            raise explained(
                error, trainer.watchdog, trainer.plan, self.output, content, self.defaults
            ) from None
        except LostProcess as error:
            raise self._broken(trainer, "another process has ended", self.output, error.why) from None
        except Exception as error:
            if not is_disk_full(error):
                raise
            where = getattr(error, "filename", None) or self.output
            raise self._broken(trainer, "the disk is full", where, do="free some space, then: ") from None

    def _broken(self, trainer: Trainer, what: str, where: object, why: str = "", do: str = "") -> OwnlmError:
        """What broke, with what is kept and how to go on."""
        kept = checkpoints(self.output)
        said = f"The checkpoint {kept[-1]} is whole." if kept else "There was no checkpoint yet."
        return OwnlmError(
            f"{what}; training stopped after step {trainer.step:,} of {trainer.plan.max_steps:,}.",
            where=where,
            why=f"{why} {said}".lstrip(),
            do=do + self._resume_command(),
        )

    def _broken_off(self, trainer: Trainer, content: dict[str, Any]) -> Interrupted:
        """What a second Ctrl-C left, or one after the last step."""
        if content["finished"]:
            return Interrupted(
                "interrupted after training; the model is written, the full pass or the report is missing.",
                where=self.output,
                do=f"ownlm evaluate {shlex.quote(str(self.output))}",
            )
        kept = checkpoints(self.output)
        what = f"the checkpoint {kept[-1]} is kept" if kept else "there was no checkpoint yet"
        return Interrupted(
            f"broken off after step {trainer.step:,} of {trainer.plan.max_steps:,}; {what}.",
            do=self._resume_command(),
        )

    def _resume_command(self) -> str:
        corpus, output = shlex.quote(str(self.settings["corpus"])), shlex.quote(str(self.output))
        return f"{program(self.processes.count)} pretrain {corpus} -o {output} --resume"

    def _finish(self, trainer: Trainer, corpus: Corpus, content: dict[str, Any]) -> Run:
        live = LiveLine(trainer.plan, self.settings["logging_steps"])
        trainer.on_step, trainer.on_validation, trainer.on_skipped = live.step, live.validation, live.skipped
        trainer.tracker = trackers.tracker_for(
            content["settings"]["report_to"], self.output, content["settings"]
        )
        trainer.on_sample = lambda step, seconds: live.sample(
            seconds, sample(trainer, corpus, step), trainer.plan.sample_prompt
        )
        finished = trainer.train()
        live.clear()
        seconds, tokens = trainer.seconds_before, trainer.step * trainer.plan.tokens_per_step
        flops = tokens * trainer.plan.flops_per_token
        content["cost"] = {
            "seconds": seconds,
            "tokens": tokens,
            "flops": flops,
            "mfu": flops / max(seconds, 1e-9) / trainer.plan.peak_flops,
            "skipped_steps": trainer.watchdog.skipped if trainer.watchdog else 0,
        }
        if content["cost"]["skipped_steps"]:
            out.say(
                f"{content['cost']['skipped_steps']:,} of {trainer.step:,} steps were skipped; log.jsonl says why."
            )
        if not finished:
            write_run(self.output, content)
            raise Interrupted(
                f"stopped at step {trainer.step:,} of {trainer.plan.max_steps:,}; everything up to it is saved.",
                do=self._resume_command(),
            )
        save_model(trainer.model, self.output, token_ids(corpus.tokenizer))
        content["finished"] = True
        write_run(self.output, content)
        write_model_card(self.output, content)
        out.say(f"model written to {self.output} after {out.human_seconds(time.monotonic() - self.started)}")
        self._score(trainer.model, corpus, content)
        return Run(self.output)

    def _score(self, model: Transformer, corpus: Corpus, content: dict[str, Any]) -> None:
        """One full pass over the validation text with the function `evaluate` uses; then the report."""
        from ownlm.engine.scoring import scorer_of
        from ownlm.evaluation.scoring import evaluate_split
        from ownlm.model.checkpoint import stored_as
        from ownlm.report import write_report

        split = corpus.split("validation")
        if split.num_bytes:
            model.eval()
            # The window and the interval's seed that `ownlm evaluate` takes: its figures are these.
            window = model.config.max_position_embeddings
            scorer = scorer_of(model, str(stored_as(model)).removeprefix("torch."))
            content["result"] = evaluate_split(scorer, split, context=window)
            write_run(self.output, content)
            write_model_card(self.output, content)
        write_report(self.output)


def _without_kernels(config: ModelConfig, plan: TrainPlan) -> tuple[TrainPlan, dict[str, Any]]:
    """The plan, and what is to be recorded, of a run that began on the native kernels where they cannot be used now."""
    reason = why_not(config, plan.device, plan.gradient_checkpointing)
    if not plan.fused or reason is None:
        return plan, {}
    out.say(
        f"The run began on the native kernels and goes on through torch ({reason}): equal up to rounding."
    )
    return dataclasses.replace(plan, fused=False), {"fused": False}
