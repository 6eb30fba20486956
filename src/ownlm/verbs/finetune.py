"""`ownlm finetune`: a model and rows of a task -> a run folder."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import output as out
from ownlm.console.settings import given_settings, verb

if TYPE_CHECKING:
    from ownlm.training.run_folder import Run


@verb
def finetune(
    model: str,
    data: list[str],
    *,
    output: Path = Path("run2"),
    task: Literal[
        "chat", "completion", "classification", "sentiment", "ner", "qa", "translation", "summarization"
    ]
    | None = None,
    as_: Literal["text", "head"] | None = None,
    map: list[str] = [],  # noqa: B006 - pydantic copies the default
    chat_template: str | None = None,
    lora: bool = False,
    lora_r: int = 16,
    lora_alpha: float = 32.0,
    lora_dropout: float = 0.0,
    rslora: bool = False,
    target_modules: str = "all-linear",
    base_dtype: Literal["float32", "int8"] = "float32",
    max_length: int | None = None,
    overlong: Literal["error", "truncate", "drop"] = "error",
    train_on: Literal["answers", "all"] = "answers",
    validation: float = 0.1,
    eval_rows: int = 200,
    allow_overlap: bool = False,
    minutes: float | None = None,
    max_steps: int | None = None,
    num_train_epochs: float | None = None,
    learning_rate: float | None = None,
    muon_learning_rate: float | None = None,
    weight_decay: float = 0.01,
    max_grad_norm: float = 1.0,
    warmup_steps: int | None = None,
    per_device_train_batch_size: int | None = None,
    gradient_accumulation_steps: int | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 0,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    threads: int | None = None,
    eval_steps: int | None = None,
    save_steps: int | None = None,
    save_total_limit: int = 2,
    logging_steps: int = 0,
    on_divergence: Literal["stop", "skip"] = "stop",
    resume: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    json: bool = False,
    config: Path | None = None,
) -> Run:
    """Teach a model a task from rows of data.

    DATA are files or folders of jsonl, json, csv, tsv or parquet, or two aligned text files; what they train is found
    from their columns (`ownlm data check DATA` shows it). Loss is on the answers alone, rows are packed without seeing
    each other, a share of the rows is held out, and the task's figure on them is measured before and after.

    Args:
        model: a run folder, `last`, or a name on the hub.
        data: files and folders with rows.
        output: the run folder to write.
        task: what the rows are for; found from their columns when not given.
        as_: how sentiment, classification and qa are learnt: by a head (the default), or as text; ner by a head.
        map: column=role for columns of other names (may be repeated).
        chat_template: for a model without one: chatml, alpaca, a file with a Jinja template, or none for plain pairs.
        lora: train low-rank adapters beside the frozen weights.
        lora_r: rank of the adapters.
        lora_alpha: their change is multiplied by alpha / r.
        lora_dropout: share of an adapter's inputs that is left out in training.
        rslora: multiply by alpha / sqrt(r) instead.
        target_modules: all-linear, or names of layers with commas: q_proj,v_proj.
        base_dtype: with --lora: hold the frozen weights in float32, or in int8, which takes a quarter of the memory.
        max_length: tokens of a row at most; default the model's window.
        overlong: rows that are longer: error, truncate or drop.
        train_on: answers, or all tokens.
        validation: share of the rows that is held out, where no file is named for it; 0 holds out none.
        eval_rows: held-out rows at most that are answered for the figures before and after.
        allow_overlap: train also when held-out rows are trained on; recorded.
        minutes: train about this long.
        max_steps: train exactly this many steps.
        num_train_epochs: how often to go through the rows; without any length 3, with a head 2.
        learning_rate: peak of AdamW; default by rule.
        muon_learning_rate: peak of Muon, which trains the matrices; default by rule.
        weight_decay: decoupled, on all matrices.
        max_grad_norm: clip gradients to this norm; 0 does not clip.
        warmup_steps: default a tenth of the run, at most 20.
        per_device_train_batch_size: windows of a micro-batch; default by rule.
        gradient_accumulation_steps: micro-batches a step.
        gradient_checkpointing: compute the inner values of blocks again instead of keeping them.
        seed: of the split, the order, and new weights.
        dtype: arithmetic of matrix products; auto is bfloat16 only where the hardware has it.
        device: where to train: cpu, cuda, mps, or auto.
        threads: CPU threads; default all cores.
        eval_steps: steps between validations on held-out rows; default at most 4 % of the time.
        save_steps: steps between checkpoints; default a tenth of the run.
        save_total_limit: checkpoints to keep.
        logging_steps: print a line every so many steps.
        on_divergence: what a step does whose loss or gradients are not finite, or whose loss jumps: stop, or skip.
        resume: go on with the unfinished run in the output folder.
        dry_run: show what would be trained and stop before the first step; nothing is written.
        overwrite: replace the run in the output folder.
        json: print the result as JSON.
        config: YAML file with settings; options on the command line win.
    """
    settings, started = dict(locals()), time.monotonic()
    from ownlm.training.tuning.session import Tuning

    session = Tuning(settings, given_settings(), started)
    run = session.resume() if resume else session.start()
    content: dict[str, Any] = run.content
    if out.from_cli() and json:
        out.result_json(content["preflight"] if dry_run else content)
    if dry_run:
        if out.from_cli() and not json:
            out.result(_planned(content["preflight"]))
        out.next_commands(content["repeat"])
        return run
    out.say(f"the same bits again: {content['repeat']}")
    out.next_commands(*_next(run, content["task"]))
    return run


def _planned(looked: dict[str, Any]) -> str:
    return (
        f"dry run, nothing was written: {looked['rows']['train']:,} rows, {looked['steps']:,} steps, {looked['epochs']:.2f} "
        f"epochs, about {out.human_seconds(looked['duration']['seconds'])}"
    )


def _next(run: Run, task: str) -> list[str]:
    from ownlm.headed_refusal import example

    place = shlex.quote(str(run.path))
    use = {
        "ner": example(run.path, "token-classification"),
        "chat": f"ownlm chat {place}",
        "translation": f'ownlm translate {place} "…" --to LANGUAGE',
        "summarization": f"ownlm summarize {place} FILE",
        "qa": f'ownlm answer {place} "question" --context FOLDER',
        "completion": f'ownlm generate {place} "…"',
    }
    return [use.get(task, f'ownlm classify {place} "…"'), f"ownlm evaluate {place} DATA --task {task}"]
