"""A pretraining run from settings to the finished folder: plan, train, write the model, score it, report."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import torch

from ownlm.console import output as out
from ownlm.console.errors import Interrupted, OwnlmError, Refused, UsageError, is_disk_full
from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus
from ownlm.machine.cpu import available_memory, num_cores
from ownlm.machine.device import choose_device, choose_dtype
from ownlm.machine.measure import matmul_rate
from ownlm.model.checkpoint import load_config, save_model
from ownlm.model.config import ModelConfig
from ownlm.training import setup
from ownlm.training.checkpoint import checkpoints, load_checkpoint, token_ids
from ownlm.training.live import LiveLine
from ownlm.training.log import cut_log
from ownlm.training.loop import Trainer
from ownlm.training.plan import (
    EVAL_ROWS,
    TrainPlan,
    check_memory,
    one_length,
    parse_count,
    refuse_numbers,
    rows_for,
    steps_for,
    tokens_per_step_for,
)
from ownlm.training.record import announce, describe, prepare_folder
from ownlm.training.run_folder import (
    Run,
    claim_output,
    read_run,
    refuse_output,
    write_model_card,
    write_run,
)

DEFAULT_MINUTES = 10.0
SAMPLE_TOKENS = 60
FINISH_SECONDS = 2.0  # writing the model, the card and the last log lines
MATMUL_SIZE = 1024


class Session:
    """One run.

    Args:
        settings: the resolved arguments of the verb, by name.
        defaults: of the verb, by name.
        started: `time.monotonic()` of the command's start; `--minutes` counts from there.
    """

    def __init__(self, settings: dict[str, Any], defaults: dict[str, Any], started: float) -> None:
        self.settings, self.defaults, self.started = settings, defaults, started
        self.output = Path(settings["output"])
        setup.refuse_many_processes()

    def start(self) -> Run:
        """A new run, to its end. All that can be refused is refused before the output folder is touched."""
        given = self.settings
        seconds, tokens, chosen = self._length()
        refuse_numbers(given)
        corpus = Corpus.open(Path(given["corpus"]))
        refuse_output(self.output, given["overwrite"])
        start = self._start_model(corpus, given["from_"])
        config, draft, size = self._draft(corpus, start, seconds)
        check_memory(config, draft.per_device_train_batch_size, draft.context, available_memory())
        batches = Batches(corpus.split("train"), draft.context, draft.rows_per_step, draft.seed)
        steps = steps_for(
            max_steps=given["max_steps"],
            tokens=tokens,
            epochs=given["num_train_epochs"],
            tokens_per_step=draft.tokens_per_step,
            tokens_per_epoch=batches.tokens_per_epoch,
        )
        if not chosen:
            out.say(
                f"No length given: training for {DEFAULT_MINUTES:g} minutes (--minutes, --max-steps, --num-train-epochs or --tokens)."
            )
        per_step = 0.0
        if steps is None:
            assert seconds is not None
            steps, per_step = self._calibrated(corpus, config, draft, start, seconds)
        intervals = {name: given[name] for name in ("warmup_steps", "eval_steps", "save_steps")}
        plan = self._with_samples(draft.with_steps(steps, **intervals), per_step)
        claim_output(self.output, given["overwrite"])
        content = describe(given, self.defaults, self.output, corpus, config, plan, size)
        prepare_folder(self.output, corpus, config, content)
        trainer = setup.build_trainer(corpus, config, plan, self.output, start)
        announce(corpus, config, plan, size, batches)
        return self._train(trainer, corpus, content)

    def _length(self) -> tuple[float | None, int | None, bool]:
        """(seconds, tokens, whether a length was given): how long to train, as far as the settings say it."""
        given = self.settings
        lengths = {name: given[name] for name in ("minutes", "max_steps", "num_train_epochs", "tokens")}
        one_length(**lengths)
        chosen = any(value is not None for value in lengths.values())
        minutes, epochs = given["minutes"] if chosen else DEFAULT_MINUTES, given["num_train_epochs"]
        if minutes is not None and minutes <= 0:
            raise UsageError(f"{minutes} minutes are no time to train.", where="--minutes")
        if epochs is not None and epochs <= 0:
            raise UsageError(f"{epochs:g} times through the text is no training.", where="--num-train-epochs")
        tokens = parse_count(given["tokens"], "--tokens") if given["tokens"] is not None else None
        return minutes * 60 if minutes is not None else None, tokens, chosen

    def _calibrated(
        self, corpus: Corpus, config: ModelConfig, draft: TrainPlan, start: Path | None, seconds: float
    ) -> tuple[int, float]:
        """(max_steps, seconds a step) for a number of seconds, measured on a model that is thrown away."""
        plan = draft.with_steps(1000, warmup_steps=None, eval_steps=None, save_steps=None)
        trial = setup.build_trainer(corpus, config, plan, self.output, start)
        left = seconds - (time.monotonic() - self.started) - min(FINISH_SECONDS, 0.03 * seconds)
        return setup.calibrated_steps(trial, left)

    def resume(self) -> Run:
        """Go on with the unfinished run in the output folder, as if it had never stopped."""
        content = read_run(self.output)
        self._refuse_changes(content)
        if content.get("finished"):
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
        plan = TrainPlan.from_json(content["plan"])
        found = checkpoints(self.output)
        config = load_config(found[-1] if found else self.output)
        trainer = setup.build_trainer(
            corpus,
            config,
            plan,
            self.output,
            self._start_model(corpus, content["settings"].get("from_")) if not found else None,
        )
        if found:
            state = load_checkpoint(found[-1], trainer.model, trainer.optimizer)
            trainer.step, trainer.seconds_before = int(str(state["step"])), float(str(state["seconds"]))
        cut = cut_log(self.output / "log.jsonl", trainer.step if found else -1)
        out.say(
            f"Going on at step {trainer.step:,} of {plan.max_steps:,}"
            + (f" ({cut} later log lines cut)." if cut else ".")
        )
        return self._train(trainer, corpus, content)

    def _refuse_changes(self, content: dict[str, Any]) -> None:
        for name, value in self.settings.items():
            if (
                name in ("corpus", "output", "resume", "json", "config", "overwrite")
                or value == self.defaults[name]
            ):
                continue
            if str(value) != str(content["settings"].get(name)):
                raise UsageError(
                    f"--resume goes on with the settings of the run: {name} was {content['settings'].get(name)}, now {value}.",
                    where=self.output,
                    do=f"leave it out, or start another run with --from {self.output}",
                )

    def _start_model(self, corpus: Corpus, name: str | None) -> Path | None:
        """The folder of the model to go on from; None: random weights."""
        if name is None:
            return None
        from ownlm.corpus.tokenizer import Tokenizer
        from ownlm.loaded import resolve

        folder = resolve(name)
        if name == "last":  # it will soon mean another run: the repeat command and --resume need its name
            self.settings["from_"] = name = str(folder)
        if self.output.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise UsageError(
                "the model to go on from lies in the output folder and would be replaced.",
                where=folder,
                do=f"-o {self.output}-on",
            )
        if Tokenizer.load(folder).sha256 != corpus.tokenizer.sha256:
            raise Refused(
                "the model and the corpus have different tokenizers; its token ids would mean other words.",
                where=folder,
                do=f"ownlm prepare … -o another-corpus --tokenizer {name}",
            )
        return folder

    def _draft(
        self, corpus: Corpus, start: Path | None, seconds: float | None
    ) -> tuple[ModelConfig, TrainPlan, str]:
        """Everything but the number of steps."""
        given = self.settings
        device = choose_device(given["device"])
        dtype = choose_dtype(given["dtype"], device)
        threads = given["threads"] or num_cores()
        train = corpus.split("train")
        context = given["context"] or min(
            setup.DEFAULT_CONTEXT, max(8, 2 ** ((train.num_tokens // 4).bit_length() - 1))
        )
        if start is not None:
            config, size = load_config(start), "given"
            context = given["context"] or min(context, config.max_position_embeddings)
            if context > config.max_position_embeddings:
                raise UsageError(
                    f"{context:,} tokens are more than the model's window of {config.max_position_embeddings:,}.",
                    where="--context",
                )
            if given["set"] or given["size"] != "auto" or given["architecture"] != "qwen3":
                raise UsageError(
                    "--size, --set and --architecture describe a new model; --from brings its own.",
                    where="--from",
                )
        else:
            size = given["size"]
            if size == "auto":
                size = setup.choose_size(seconds, device, dtype, train.num_tokens)
            config = setup.model_config(given, corpus.tokenizer.vocab_size, size, context)
        torch.set_num_threads(threads)
        rows, accumulation = rows_for(
            tokens_per_step_for(config, seconds),
            context,
            given["per_device_train_batch_size"],
            given["gradient_accumulation_steps"],
        )
        plan = TrainPlan(
            max_steps=0, context=context, per_device_train_batch_size=rows, gradient_accumulation_steps=accumulation,
            learning_rate=given["learning_rate"], muon_learning_rate=given["muon_learning_rate"],
            weight_decay=given["weight_decay"], max_grad_norm=given["max_grad_norm"], warmup_steps=0, decay_steps=1,
            eval_steps=1, eval_rows=EVAL_ROWS, save_steps=1, save_total_limit=max(1, given["save_total_limit"]), sample_steps=[],
            sample_prompt=given["sample_prompt"] or self._first_words(corpus), seed=given["seed"], dtype=dtype, device=device,
            threads=threads, flops_per_token=config.flops_per_token(context),
            peak_flops=matmul_rate(dtype, MATMUL_SIZE),
        )  # fmt: skip
        return config, plan, size

    def _first_words(self, corpus: Corpus) -> str:
        """The default prompt of samples: the first eight tokens of a text that is held out, in its first line."""
        split = corpus.split("validation")
        if not split.num_documents:
            return ""
        # Where a document was cut in two, the held-out part begins with blank lines, or inside a character.
        text = corpus.tokenizer.decode(split.document(0)[1:65]).lstrip("\ufffd \n\t")
        tokens = corpus.tokenizer.encode(text.split("\n")[0])[:8]
        return corpus.tokenizer.decode(tokens).rstrip("\ufffd")

    def _with_samples(self, plan: TrainPlan, seconds_per_step: float) -> TrainPlan:
        """Samples at the start, at about 30 and 120 seconds when the speed is known, else at each fifth of the run."""
        import dataclasses

        if seconds_per_step:
            steps = [0, round(30 / seconds_per_step), round(120 / seconds_per_step)]
        else:
            steps = [plan.max_steps * i // 5 for i in range(5)]
        return dataclasses.replace(plan, sample_steps=sorted({s for s in steps if s < plan.max_steps}))

    def _train(self, trainer: Trainer, corpus: Corpus, content: dict[str, Any]) -> Run:
        """`_finish`, with a full disk and a break said in words: what is kept, and how to go on."""
        try:
            return self._finish(trainer, corpus, content)
        except KeyboardInterrupt:
            raise self._broken_off(trainer, content) from None
        except Exception as error:
            if not is_disk_full(error):
                raise
            kept = checkpoints(self.output)
            raise OwnlmError(
                f"the disk is full; training stopped after step {trainer.step:,} of {trainer.plan.max_steps:,}.",
                where=getattr(error, "filename", None) or self.output,
                why=f"The checkpoint {kept[-1]} is whole." if kept else "There was no checkpoint yet.",
                do=f"free some space, then: {self._resume_command()}",
            ) from None

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
        return f"ownlm pretrain {corpus} -o {output} --resume"

    def _finish(self, trainer: Trainer, corpus: Corpus, content: dict[str, Any]) -> Run:
        live = LiveLine(trainer.plan, self.settings["logging_steps"])
        trainer.on_step, trainer.on_validation = live.step, live.validation
        trainer.on_sample = lambda step, seconds: live.sample(
            seconds, self._sample(trainer, corpus, step), trainer.plan.sample_prompt
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
        }
        if not finished:
            write_run(self.output, content)
            raise Interrupted(
                f"stopped at step {trainer.step:,} of {trainer.plan.max_steps:,}; everything up to it is saved.",
                do=self._resume_command(),
            )
        save_model(trainer.model, self.output, token_ids(self.output))
        content["finished"] = True
        write_run(self.output, content)
        write_model_card(self.output, content)
        out.say(f"model written to {self.output} after {out.human_seconds(time.monotonic() - self.started)}")
        self._score(trainer, corpus, content)
        return Run(self.output)

    def _sample(self, trainer: Trainer, corpus: Corpus, step: int) -> str:
        from ownlm.engine import Engine, Request, SamplingSettings
        from ownlm.seeds import derive

        tokenizer, plan = corpus.tokenizer, trainer.plan
        prompt = [tokenizer.eos_id, *tokenizer.encode(plan.sample_prompt).tolist()][-(plan.context // 2) :]
        settings = SamplingSettings(
            temperature=0.8, max_new_tokens=min(SAMPLE_TOKENS, plan.context - len(prompt)), seed=derive(plan.seed, "sample", step) % 2**32,
            stop_token_ids=(tokenizer.eos_id,),
        )  # fmt: skip
        events = Engine(trainer.model, device=plan.device).generate([Request(prompt, settings)])
        written = [e.token_id for e in events if e.token_id not in (None, tokenizer.eos_id)]
        return tokenizer.decode(written).rstrip("\ufffd")  # the last token may end inside a character

    def _score(self, trainer: Trainer, corpus: Corpus, content: dict[str, Any]) -> None:
        """One full pass over the validation text with the function `evaluate` uses; then the report."""
        from ownlm.evaluation.scoring import evaluate_split
        from ownlm.report import write_report

        split = corpus.split("validation")
        if split.num_bytes:
            trainer.model.eval()
            # The window and the interval's seed that `ownlm evaluate` takes: its figures are these.
            window = trainer.model.config.max_position_embeddings
            content["result"] = evaluate_split(trainer.model, split, context=window)
            write_run(self.output, content)
            write_model_card(self.output, content)
        write_report(self.output)
