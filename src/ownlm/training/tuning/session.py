"""A fine-tuning run from settings to the finished folder: read, split, plan, train, write, measure, report."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.console import output as out
from ownlm.console.errors import Interrupted, OwnlmError, Refused, UsageError, is_disk_full
from ownlm.console.lock import only_one
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.model.checkpoint import load_config, save_model
from ownlm.model.config import ModelConfig
from ownlm.model.lora import LoraSettings
from ownlm.tasks.dataset import DataSet, read_dataset, typed_name
from ownlm.tasks.items import Item
from ownlm.tasks.measure import Reader
from ownlm.tasks.prompts import as_chat
from ownlm.tasks.templates import ChatTemplate, find_template
from ownlm.training.checkpoint import checkpoints, load_checkpoint, token_ids
from ownlm.training.live import LiveLine
from ownlm.training.log import cut_log
from ownlm.training.loop import Trainer
from ownlm.training.plan import TrainPlan
from ownlm.training.run_folder import Run, claim_output, read_run, refuse_output, write_run
from ownlm.training.setup import calibrated_steps
from ownlm.training.tuning import build, measuring, memory, planning, preflight, record, split, texts
from ownlm.training.tuning.expectation import expectation
from ownlm.training.tuning.packed import Packed
from ownlm.training.watchdog import Watchdog

FINISH_SECONDS = 2.0


@dataclass
class Prepared:
    """All that is known before a step is planned.

    Attributes:
        folder: of the model to start from. config: its.
        run: its run.json, {} for other models.
        train, held_out: rows. packed, validation: their windows.
        counted: of the rows to train on.
    """

    folder: Path
    config: ModelConfig
    run: dict[str, Any]
    data: DataSet
    tokenizer: Tokenizer
    template: ChatTemplate | None
    train: list[Item]
    held_out: list[Item]
    both_sides: list[tuple[str, str]]
    texts: list[texts.Text]
    held_out_texts: list[texts.Text]
    counted: texts.Counted
    max_length: int


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
        self.way = "lora" if settings["lora"] else "full"

    # ---- a new run

    def start(self) -> Run:
        """A new run, to its end. All that can be refused is refused before the output folder is touched."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("finetune runs in one process.", where="torchrun", do="ownlm finetune …")
        refuse_output(self.output, self.settings["overwrite"])
        known = self._prepared()
        plan = planning.draft(self.settings, known.config, self.way, *self._windows(known))
        packed = self._packed(known, plan)
        steps, per_step = self._steps(known, plan, packed)
        plan = planning.with_steps(self.settings, plan, steps)
        needed = memory.of_tuning(known.config, plan, self._lora())
        memory.refuse_too_large(needed, self.way)
        looked = preflight.look(
            packed, known.counted, plan, per_step, len(known.held_out), known.both_sides, needed
        )
        self._say(known, plan, looked)
        content = self._described(known, plan, looked)
        if self.settings["dry_run"]:
            return Run(self.output, content)
        self.output.mkdir(parents=True, exist_ok=True)
        with only_one(self.output):
            claim_output(self.output, self.settings["overwrite"])
            record.write_files(self.output, known.tokenizer, known.template, content, self._ends(known))
            return self._train(self._trainer(known, plan, packed), known, content)

    def _prepared(self) -> Prepared:
        from ownlm.loaded import read_run as run_of
        from ownlm.loaded import resolve
        from ownlm.model.lora_files import is_adapter

        settings = self.settings
        folder = resolve(settings["model"])
        if is_adapter(folder):
            raise Refused(
                "an adapter cannot be the start of another run.",
                where=folder,
                do=f"ownlm export {shlex.quote(str(folder))} merged --merge-adapter, then finetune merged",
            )
        if self.output.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise UsageError(
                "the model lies in the output folder and would be replaced.", where=folder, do="another -o"
            )
        config = load_config(folder)
        data = read_dataset(settings["data"], task=settings["task"], maps=settings["map"])
        _say_data(data, settings["data"])
        tokenizer = Tokenizer.load(folder)
        template = self._template(data, tokenizer, folder)
        train, held_out = split.divided(data, settings["validation"], settings["seed"])
        both = split.on_both_sides(train, held_out)
        if not settings["allow_overlap"]:
            split.refuse_overlap(both, len(held_out))
        return self._rendered(
            folder, config, run_of(folder), data, tokenizer, template, train, held_out, both
        )

    def _rendered(
        self, folder: Path, config: ModelConfig, run: dict[str, Any], data: DataSet, tokenizer: Tokenizer,
        template: ChatTemplate | None, train: list[Item], held_out: list[Item], both: list[tuple[str, str]],
    ) -> Prepared:  # fmt: skip
        settings = self.settings
        max_length = settings["max_length"] or config.max_position_embeddings
        if max_length > config.max_position_embeddings:
            raise UsageError(
                f"{max_length:,} tokens are more than the model's window of {config.max_position_embeddings:,}.",
                where="--max-length",
            )
        reader = Reader(str(settings["model"]), tokenizer, template, max_length)
        options: dict[str, Any] = {"max_length": max_length, "train_on": settings["train_on"]}
        found, kept, counted = texts.texts_of(
            train, data.task, reader, data.problems, overlong=settings["overlong"], **options
        )
        # Held-out rows that are too long are measured cut; for the loss they are left out.
        there, _, _ = texts.texts_of(held_out, data.task, reader, data.problems, overlong="drop", **options)
        if not found:
            raise _nothing_to_train(data, settings["data"])
        return Prepared(
            folder,
            config,
            run,
            data,
            tokenizer,
            template,
            kept,
            held_out,
            both,
            found,
            there,
            counted,
            max_length,
        )

    def _template(self, data: DataSet, tokenizer: Tokenizer, folder: Path) -> ChatTemplate | None:
        needed = any(as_chat(item, data.task) is not None for item in data.items())
        given = self.settings["chat_template"]
        if not needed:
            if given is not None:
                raise Refused(
                    f"has no effect on rows of the shape {data.shape.name}.", where="--chat-template",
                    why="They are texts, not conversations.", do="leave it out",
                )  # fmt: skip
            return None
        return find_template(tokenizer, folder, given)

    def _lora(self) -> LoraSettings | None:
        settings = self.settings
        if not settings["lora"]:
            for name in ("lora_r", "lora_alpha", "lora_dropout", "rslora", "target_modules"):
                if name in self.given:
                    option = "--" + name.replace("_", "-")
                    raise Refused(
                        "has no effect without --lora.", where=option, do=f"--lora, or leave {option} out"
                    )
            return None
        targets = settings["target_modules"]
        return LoraSettings(
            r=settings["lora_r"], alpha=settings["lora_alpha"], dropout=settings["lora_dropout"],
            rslora=settings["rslora"], target_modules=targets if targets == "all-linear" else tuple(targets.split(",")),
        )  # fmt: skip

    def _windows(self, known: Prepared) -> tuple[int, int]:
        longest = max(text.places for text in known.texts)
        context = planning.window_for(longest, known.max_length)
        return context, max(1, round(sum(text.places for text in known.texts) / context))

    def _packed(self, known: Prepared, plan: TrainPlan) -> Packed:
        return Packed(known.texts, plan.context, plan.rows_per_step, plan.seed, known.tokenizer)

    def _steps(self, known: Prepared, plan: TrainPlan, packed: Packed) -> tuple[int, float]:
        steps = planning.steps_of(self.settings, plan, packed.windows)
        if steps is not None:
            return steps, 0.0
        trial_plan = planning.with_steps(self.settings | {"warmup_steps": None}, plan, 1000)
        trial = self._trainer(known, trial_plan, packed)
        left = self.settings["minutes"] * 60 - (time.monotonic() - self.started) - FINISH_SECONDS
        return calibrated_steps(trial, left)

    def _trainer(self, known: Prepared, plan: TrainPlan, packed: Packed) -> Trainer:
        model, weights = build.start_model(
            known.folder, plan, self._lora(), str(self._base(known)), known.tokenizer
        )
        held_out = (
            Packed(known.held_out_texts, plan.context, 1, plan.seed, known.tokenizer)
            if known.held_out_texts
            else None
        )
        validation = build.validation_rows(held_out, plan.eval_rows)
        return build.text_trainer(
            model, weights, plan, packed, validation, self.output, muon=self.way != "lora"
        )

    def _base(self, known: Prepared) -> str | Path:
        """What an adapter names as its base: a name on the hub as it was typed, else the folder."""
        typed = str(self.settings["model"])
        return known.folder.resolve() if Path(typed).exists() or typed == "last" else typed

    def _say(self, known: Prepared, plan: TrainPlan, looked: dict[str, Any]) -> None:
        for sentence in expectation(
            known.data.task, len(known.texts), len(known.held_out), looked["rows"]["trained_tokens"],
            known.config.num_parameters(),
        ):  # fmt: skip
            out.say(sentence)
        way = f"LoRA of rank {self.settings['lora_r']}" if self.way == "lora" else "all weights"
        out.say(
            f"plan: {way}; {plan.max_steps:,} steps of {plan.rows_per_step:,} windows of {plan.context:,} tokens = "
            f"{looked['epochs']:.2f} times through the rows; {plan.dtype} on {plan.device}, {plan.threads} threads"
        )
        preflight.show(looked)

    def _described(self, known: Prepared, plan: TrainPlan, looked: dict[str, Any]) -> dict[str, Any]:
        settings, parameters = self.settings, known.config.num_parameters()
        return record.describe(
            settings, self.given, plan, task=known.data.task, way=self.way, template=known.template,
            tokenizer=known.tokenizer, looked=looked, taught_before=known.run.get("taught", ["continues text"]),
            model={
                "size": "given",
                "base": str(self._base(known)),
                "architecture": known.config.architecture,
                "parameters": parameters,
                "trained_parameters": parameters if self.way == "full" else memory.adapter_parameters(known.config, self._lora()),
            },
            data={
                "sources": [str(source) for source in settings["data"]],
                "shape": known.data.shape.name,
                "hash": build.data_hash(known.texts),
                "train_rows": len(known.texts),
                "held_out_rows": len(known.held_out),
                "left_out": dict(known.data.problems.left_out),
                "train_tokens": sum(len(text.ids) for text in known.texts),
            },
        )  # fmt: skip

    def _ends(self, known: Prepared) -> list[int]:
        """Ids that end an answer: what the template puts behind one, and the end of a document."""
        found = [int(text.ids[text.trained][-1]) for text in known.texts[:100] if text.trained.any()]
        special = set(known.tokenizer.special_ids.values())
        return list(dict.fromkeys([known.tokenizer.eos_id, *(token for token in found if token in special)]))

    # ---- a run that goes on

    def resume(self) -> Run:
        """Go on with the unfinished run in the output folder, as if it had never stopped."""
        content = read_run(self.output)
        if content.get("finished"):
            raise UsageError("this run is finished.", where=self.output, do="another -o")
        free = {*record.OF_THE_COMMAND, "model", "data"}
        for name in self.given:
            if name not in free and record._plain(self.settings[name]) != content["settings"].get(name):
                raise UsageError(
                    f"--resume goes on with the settings of the run: {name} was {content['settings'].get(name)}, now "
                    f"{self.settings[name]}.",
                    where=self.output,
                    do="leave it out",
                )
        kept = {name: content["settings"][name] for name in self.settings if name not in free}
        self.settings |= kept
        self.way = content["way"]
        with only_one(self.output):
            known = self._prepared()
            plan = TrainPlan.from_json(content["plan"])
            if build.data_hash(known.texts) != content["data"]["hash"]:
                raise Refused(
                    "the rows are not those that this run was trained on.",
                    where=typed_name(self.settings["data"]),
                    why="The hash of their tokens differs from run.json.",
                )
            trainer = self._trainer(known, plan, self._packed(known, plan))
            trainer.watchdog = Watchdog(self.settings["on_divergence"])
            found = checkpoints(self.output)
            if found:
                state = load_checkpoint(found[-1], trainer.weights, trainer.optimizer)
                trainer.watchdog.load(state)
                trainer.step, trainer.seconds_before = int(str(state["step"])), float(str(state["seconds"]))
            cut = cut_log(self.output / "log.jsonl", trainer.step if found else -1)
            out.say(
                f"Going on at step {trainer.step:,} of {plan.max_steps:,}"
                + (f" ({cut} later log lines cut)." if cut else ".")
            )
            return self._train(trainer, known, content)

    # ---- training and after it

    def _train(self, trainer: Trainer, known: Prepared, content: dict[str, Any]) -> Run:
        if trainer.watchdog is None:
            trainer.watchdog = Watchdog(self.settings["on_divergence"])
        live = LiveLine(trainer.plan, self.settings["logging_steps"])
        trainer.on_step, trainer.on_validation, trainer.on_skipped = live.step, live.validation, live.skipped
        try:
            finished = trainer.train()
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise OwnlmError(
                f"the disk is full; training stopped after step {trainer.step:,}.",
                where=self.output,
                do=f"free some space, then: {self._resume_command()}",
            ) from None
        finally:
            live.clear()
        content["cost"] = {
            "seconds": trainer.seconds_before,
            "tokens": trainer.step * trainer.plan.tokens_per_step,
            "flops": trainer.step * trainer.plan.tokens_per_step * trainer.plan.flops_per_token,
        }
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
            save_model(trainer.model, self.output, token_ids(known.tokenizer))

    def _measure(self, known: Prepared, content: dict[str, Any]) -> None:
        from ownlm.evaluation.tasks.stored import store_scores
        from ownlm.report import write_report

        task = known.data.task
        rows = measuring.sample_of(known.held_out, self.settings["eval_rows"], self.settings["seed"])
        after = measuring.measured(self.output, task, rows, self.settings["seed"], "after")
        if after is not None:
            same = known.template is None or self.settings["chat_template"] is None
            before = (
                measuring.measured(known.folder, task, rows, self.settings["seed"], "before")
                if same
                else None
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


def _say_data(data: DataSet, typed: list[str]) -> None:
    out.say(f"{data.rows:,} rows of the shape {data.shape.name}, task {data.task}.")
    left_out = sum(data.problems.left_out.values())
    if left_out:
        first = next(problem for problem in data.problems.kept if problem.left_out)
        out.warn(f"{left_out:,} rows cannot be used; the first: {first}")
        out.say(f"  all of them: ownlm data check {typed_name(typed)}")


def _nothing_to_train(data: DataSet, typed: list[str]) -> Refused:
    kinds = ", ".join(f"{kind} ({number:,})" for kind, number in data.problems.left_out.most_common(3))
    return Refused(
        "nothing could be trained: no row has a token to learn.",
        where=typed_name(typed),
        why=f"Left out: {kinds or 'there is no row to train on'}.",
        do=f"ownlm data check {typed_name(typed)}",
    )
