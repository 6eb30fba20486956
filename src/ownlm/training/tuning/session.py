"""A fine-tuning run from settings to the finished folder: read, split, plan, train, write, measure, report."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ownlm.adapter_bases import refuse_other_base
from ownlm.console import output as out
from ownlm.console.errors import Interrupted, Refused, UsageError
from ownlm.console.lock import only_one
from ownlm.locate import find_run
from ownlm.model.lora import LoraSettings
from ownlm.model.weights_hash import weights_sha256
from ownlm.tasks.dataset import typed_name
from ownlm.training.checkpoint import checkpoints, load_checkpoint
from ownlm.training.live import LiveLine
from ownlm.training.log import cut_log
from ownlm.training.loop import Trainer
from ownlm.training.plan import TrainPlan, refuse_numbers
from ownlm.training.run_folder import Run, claim_output, full_disk_told, read_run, refuse_output, write_run
from ownlm.training.setup import calibrated_steps
from ownlm.training.tuning import broken, build, measuring, memory, planning, preflight, record
from ownlm.training.tuning.expectation import expectation
from ownlm.training.tuning.forms import Start
from ownlm.training.tuning.head_trainer import HeadRows
from ownlm.training.tuning.packed import Packed
from ownlm.training.tuning.prepare import Prepared, prepare
from ownlm.training.tuning.texts import Text
from ownlm.training.watchdog import Watchdog

FINISH_SECONDS = 2.0  # writing the model and the card


class Tuning:
    """One run.

    Args:
        settings: the resolved arguments of the verb, by name.
        given: names of the settings that were really given.
        started: `time.monotonic()` of the command's start; `--minutes` counts from there.
    """

    def __init__(self, settings: dict[str, Any], given: Collection[str], started: float) -> None:
        self.settings, self.given, self.started = settings, given, started
        self.output = Path(settings["output"])
        self.lora: LoraSettings | None = None

    # ---- a new run

    def start(self) -> Run:
        """A new run, to its end. All that can be refused is refused before the output folder is touched."""
        settings = self.settings
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("finetune runs in one process.", where="torchrun", do="ownlm finetune …")
        refuse_numbers(settings)
        refuse_output(self.output, settings["overwrite"])
        if str(settings["model"]) == "last":  # it will soon mean another run
            settings["model"] = str(find_run("last"))
        self.lora = planning.lora_settings(settings, self.given)
        known = prepare(settings, self.output)
        plan = planning.draft(settings, known)
        source = build.source_of(known.form, known.examples, plan)
        windows = source.windows if isinstance(source, Packed) else len(known.examples)
        steps, per_step = self._steps(known, plan, source, windows)
        plan = planning.with_steps(settings, plan, steps)
        needed = memory.of_tuning(known.config, plan, self.lora, int8=settings["base_dtype"] == "int8")
        memory.refuse_too_large(needed, self.way)
        looked = preflight.look(known, source, plan, per_step, needed)
        self._say(known, plan, looked)
        content = self._described(known, plan, looked)
        if settings["dry_run"]:
            return Run(self.output, content)
        self.output.mkdir(parents=True, exist_ok=True)
        with only_one(self.output):
            content["base_sha256"] = weights_sha256(known.folder)
            trainer = self._trainer(
                known, plan, source
            )  # a damaged base is refused before anything is replaced
            claim_output(self.output, settings["overwrite"])
            with full_disk_told(self.output):
                record.write_files(self.output, known.form.tokenizer, known.template, content, _ends(known))
            return self._train(trainer, known, content)

    @property
    def way(self) -> str:
        """ "lora": adapters are trained, "full": all weights."""
        return "full" if self.lora is None else "lora"

    def _steps(
        self, known: Prepared, plan: TrainPlan, source: Packed | HeadRows, windows: int
    ) -> tuple[int, float]:
        kind = "text" if known.form.head is None else "head"
        steps = planning.steps_of(self.settings, plan, windows, kind)
        if steps is not None:
            return steps, 0.0
        trial = self._trainer(
            known, planning.with_steps(self.settings | {"warmup_steps": None}, plan, 1000), source
        )
        left = self.settings["minutes"] * 60 - (time.monotonic() - self.started) - FINISH_SECONDS
        return calibrated_steps(trial, left)

    def _trainer(self, known: Prepared, plan: TrainPlan, source: Packed | HeadRows) -> Trainer:
        start = Start(known.folder, known.base, plan, self.lora, self.settings["base_dtype"] == "int8")
        return build.trainer_of(known.form, start, source, known.held_out_examples, self.output)

    def _say(self, known: Prepared, plan: TrainPlan, looked: dict[str, Any]) -> None:
        rows = looked["rows"]
        for sentence in expectation(
            known.data.task, rows["train"], rows["held_out"], known.config.num_parameters()
        ):
            out.say(sentence)
        way = f"LoRA of rank {self.lora.r}" if self.lora else "all weights"
        head = f" and a new head for {known.form.head.kind}" if known.form.head else ""
        unit = f"windows of {plan.context:,} tokens" if known.form.packed else "rows"
        out.say(
            f"plan: {way}{head}; {plan.max_steps:,} steps of {plan.rows_per_step:,} {unit} = "
            f"{looked['epochs']:.2f} times through the rows; {plan.dtype} on {plan.device}, {plan.threads} threads"
        )
        preflight.show(looked)

    def _described(self, known: Prepared, plan: TrainPlan, looked: dict[str, Any]) -> dict[str, Any]:
        settings, parameters = self.settings, known.config.num_parameters()
        trained = memory.adapter_parameters(known.config, self.lora) if self.lora else parameters
        return record.describe(
            settings, self.given, plan, task=known.data.task, way=self.way, template=known.template,
            tokenizer=known.form.tokenizer, looked=looked, labels=known.labels, no_answer=known.no_answer,
            taught_before=known.run.get("taught", ["continues text"]) if known.form.head is None else [],
            model={
                "size": "given",
                "base": known.base,
                "architecture": known.config.architecture,
                "parameters": parameters,
                "trained_parameters": trained,
                "head": known.form.head.kind if known.form.head else None,
            },
            data={
                "sources": [str(source) for source in settings["data"]],
                "shape": known.data.shape.name,
                "languages": list(known.data.shape.languages),
                "hash": build.data_hash(known.examples),
                "train_rows": len(known.train),
                "held_out_rows": len(known.held_out),
                "left_out": dict(known.data.problems.left_out),
                "train_tokens": known.tokens,
            },
        )  # fmt: skip

    # ---- a run that goes on

    def resume(self) -> Run:
        """Go on with the unfinished run in the output folder, as if it had never stopped."""
        content = read_run(self.output)
        if "way" not in content:
            raise UsageError("this is no run of finetune.", where=self.output, do="ownlm pretrain … --resume")
        if content.get("finished") and (self.output / "report.html").exists():
            raise UsageError("this run is finished.", where=self.output, do="another -o")
        self._take_settings(content)
        with only_one(self.output):
            known = prepare(self.settings, self.output)
            if content.get("finished"):  # it ended after its last step: figures or report are missing
                self._measure(known, content)
                return Run(self.output)
            if self.lora is not None:
                refuse_other_base(self.output, known.folder)
            elif content.get("base_sha256") not in (None, weights_sha256(known.folder)):
                raise Refused(
                    "the weights of the model are no longer those that this run began with.",
                    where=known.folder,
                    do="bring them back as they were, or another -o",
                )
            plan = TrainPlan.from_json(content["plan"])
            if build.data_hash(known.examples) != content["data"]["hash"]:
                raise Refused(
                    "the rows are not those that this run was trained on.",
                    where=typed_name(self.settings["data"]),
                    why="The hash of their tokens differs from run.json.",
                )
            trainer = self._trainer(known, plan, build.source_of(known.form, known.examples, plan))
            trainer.watchdog = Watchdog(self.settings["on_divergence"])
            found = checkpoints(self.output)
            if found:
                state = load_checkpoint(found[-1], trainer.weights, trainer.optimizer)
                trainer.watchdog.load(state)
                trainer.step, trainer.seconds_before = int(str(state["step"])), float(str(state["seconds"]))
            cut = cut_log(self.output / "log.jsonl", trainer.step or -1)
            out.say(
                f"Going on at step {trainer.step:,} of {plan.max_steps:,}"
                + (f" ({cut} later log lines cut)." if cut else ".")
            )
            return self._train(trainer, known, content)

    def _take_settings(self, content: dict[str, Any]) -> None:
        """Those of the run; what does not change its bits may be given anew.

        Raises:
            UsageError: another setting is given.
        """
        theirs = content["settings"]
        if str(self.settings["model"]) == "last":
            self.settings["model"] = theirs["model"]
        free = {*record.OF_THE_COMMAND, "model", "data"} | (record.CHANGEABLE & set(self.given))
        for name in self.given:
            if name not in free and record._plain(self.settings[name]) != theirs.get(name):
                raise UsageError(
                    f"--resume goes on with the settings of the run: {name} was {theirs.get(name)}, now "
                    f"{self.settings[name]}.",
                    where=self.output,
                    do="leave it out",
                )
        kept = {name: theirs[name] for name in self.settings if name not in free and name in theirs}
        self.settings |= kept
        theirs |= {name: self.settings[name] for name in record.CHANGEABLE}
        self.lora = planning.lora_settings(self.settings, kept if content["way"] == "lora" else ())

    # ---- training and after it

    def _train(self, trainer: Trainer, known: Prepared, content: dict[str, Any]) -> Run:
        if trainer.watchdog is None:
            trainer.watchdog = Watchdog(self.settings["on_divergence"])
        live = LiveLine(trainer.plan, self.settings["logging_steps"])
        trainer.on_step, trainer.on_validation, trainer.on_skipped = live.step, live.validation, live.skipped
        with broken.told(self.output, trainer, content, self._resume_command()):
            try:
                finished = trainer.train()
            finally:
                live.clear()
            content["cost"] = record.cost(trainer)
            if not finished:
                write_run(self.output, content)
                raise Interrupted(
                    f"stopped at step {trainer.step:,} of {trainer.plan.max_steps:,}; everything up to it is saved.",
                    do=self._resume_command(),
                )
            self._write_weights(trainer, known)
            content["finished"] = True
            write_run(self.output, content)
            record.write_card(self.output, content)
            out.say(f"written to {self.output} after {out.human_seconds(time.monotonic() - self.started)}")
            self._measure(known, content)
        return Run(self.output)

    def _write_weights(self, trainer: Trainer, known: Prepared) -> None:
        if self.way == "lora":
            trainer.weights.save(self.output)
        else:
            known.form.write(trainer.model, self.output)

    def _measure(self, known: Prepared, content: dict[str, Any]) -> None:
        from ownlm.evaluation.tasks.stored import store_scores
        from ownlm.report import write_report

        task = known.data.task
        rows = measuring.sample_of(known.held_out, self.settings["eval_rows"], self.settings["seed"])
        options: dict[str, Any] = {"labels": known.labels}
        after = measuring.measured(self.output, task, rows, self.settings["seed"], "after", **options)
        if after is not None:
            before = None
            if _asked_alike(known, self.settings):
                before = measuring.measured(
                    known.folder, task, rows, self.settings["seed"], "before", **options
                )
            named = f"{len(rows):,} held-out rows of {typed_name(self.settings['data'])}"
            stored = store_scores(self.output, after, named, before)
            content["scores"] = stored["scores"]
            measuring.say_result(after, before)
        write_run(self.output, content)
        record.write_card(self.output, content)
        write_report(self.output)

    def _resume_command(self) -> str:
        words = ["ownlm", "finetune", str(self.settings["model"]), *map(str, self.settings["data"])]
        return shlex.join([*words, "-o", str(self.output), "--resume"])


def _ends(known: Prepared) -> list[int]:
    """Ids that end an answer: what the template puts behind one, and the end of a document."""
    tokenizer = known.form.tokenizer
    special = set(tokenizer.special_ids.values())
    found = [int(text.trained[-1]) for text in known.examples[:100] if isinstance(text, Text)]
    if known.form.head is not None:
        found = []
    return list(dict.fromkeys([tokenizer.eos_id, *(token for token in found if token in special)]))


def _asked_alike(known: Prepared, settings: Mapping[str, Any]) -> bool:
    """Whether the model can be asked before training as it is asked after it: not without head or template."""
    return known.form.head is None and (known.template is None or settings["chat_template"] is None)
