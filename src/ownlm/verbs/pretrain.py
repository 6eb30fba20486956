"""`ownlm pretrain`: a corpus folder -> a run folder."""

from __future__ import annotations

import inspect
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import output as out
from ownlm.console.settings import given_settings, verb

if TYPE_CHECKING:
    from ownlm.training.run_folder import Run


@verb
def pretrain(
    corpus: Path,
    *,
    output: Path = Path("run"),
    size: str = "auto",
    minutes: float | None = None,
    max_steps: int | None = None,
    num_train_epochs: float | None = None,
    tokens: str | None = None,
    context: int | None = None,
    from_: str | None = None,
    resume: bool = False,
    architecture: Literal["qwen3", "qwen2", "llama", "mistral", "olmo2", "phi3", "smollm3", "gpt2"] = "qwen3",
    set: list[str] = [],  # noqa: B006 - the option's name; pydantic copies the default
    learning_rate: float = 0.004,
    muon_learning_rate: float = 0.02,
    weight_decay: float = 0.01,
    max_grad_norm: float = 0.0,
    warmup_steps: int | None = None,
    per_device_train_batch_size: int | None = None,
    gradient_accumulation_steps: int | None = None,
    gradient_checkpointing: bool = False,
    compile: Literal["auto", "yes", "no"] = "auto",
    seed: int = 0,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    threads: int | None = None,
    eval_steps: int | None = None,
    save_steps: int | None = None,
    save_total_limit: int = 2,
    sample_prompt: str = "",
    logging_steps: int = 0,
    report_to: Literal["none", "tensorboard"] = "none",
    on_divergence: Literal["stop", "skip"] = "stop",
    allow_overlap: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    json: bool = False,
    config: Path | None = None,
) -> Run:
    """Train a language model on a prepared corpus.

    The length is one of --minutes, --max-steps, --num-train-epochs and --tokens; without any of them it is 10
    minutes. Minutes become a fixed number of steps after a calibration of a few seconds; the command that repeats
    the run bit for bit is printed and kept in run.json. Ctrl-C saves; --resume goes on as if it had never stopped.

    Args:
        corpus: a folder written by `ownlm prepare`.
        output: the run folder to write.
        size: 1M, 3M, 10M, 30M, 124M, 350M, 1B, or auto: chosen from the time and the text, and said.
        minutes: train about this long, from the command to the written model.
        max_steps: train exactly this many steps; 0 writes the initialised model.
        num_train_epochs: how often to go through the training text.
        tokens: train on this many tokens, such as 10M.
        context: tokens a row, the model's window; default 256, or less for a short text.
        from_: go on from this model (a run folder or a hub name) instead of random weights.
        resume: go on with the unfinished run in the output folder.
        architecture: layout of the weights: qwen3, qwen2, llama, mistral, olmo2, phi3, smollm3 or gpt2.
        set: set a field of the model, such as num_hidden_layers=2; may be repeated.
        learning_rate: peak of AdamW, which trains embeddings, head and norms.
        muon_learning_rate: peak of Muon, which trains the matrices.
        weight_decay: decoupled, on all matrices.
        max_grad_norm: clip gradients to this norm; 0 does not clip (normalised updates make it needless).
        warmup_steps: default 20, or a tenth of a short run.
        per_device_train_batch_size: rows of a micro-batch; default by rule and by free memory.
        gradient_accumulation_steps: micro-batches a step.
        gradient_checkpointing: compute the inner values of blocks again instead of keeping them: less memory, about a third slower.
        compile: send the blocks through torch's compiler; auto only where the run is long enough to pay for it.
        seed: of initial weights and data order.
        dtype: arithmetic of matrix products; auto is bfloat16 only where the hardware has it.
        device: where to train: cpu, cuda, mps, or auto.
        threads: CPU threads; default all cores.
        eval_steps: steps between validations on a fixed sample; default at most 4 % of the time.
        save_steps: steps between checkpoints; default a tenth of the run.
        save_total_limit: checkpoints to keep.
        sample_prompt: text that the samples shown during training continue.
        logging_steps: print a line every so many steps (on a terminal a live line is shown anyway).
        report_to: none, or tensorboard: event files in the run folder, a copy of log.jsonl.
        on_divergence: what a step does whose loss or gradients are not finite, or whose loss jumps: stop the run, or skip the step's update.
        allow_overlap: train also when validation text is in the training text; recorded in the run and its model card.
        dry_run: show what would be trained and stop before the first step; nothing is written.
        overwrite: replace the run in the output folder.
        json: print the result as JSON.
        config: YAML file with settings; options on the command line win.
    """
    settings, started = dict(locals()), time.monotonic()  # importing torch is a part of the minutes
    from ownlm.training.follow import done, follow
    from ownlm.training.parallel import started as started_processes
    from ownlm.training.session import Session

    defaults = {name: p.default for name, p in inspect.signature(pretrain).parameters.items()}
    with started_processes() as processes:
        if processes.first:
            session = Session(settings, defaults, given_settings(), started, processes)
            run = done(session.resume() if resume else session.start(), processes)
        else:
            run = follow(corpus, processes)
    if dry_run:
        _planned(run, json)
    elif out.from_cli() and json:
        out.result_json(run.content)
    else:
        closing(run)
    return run


def _planned(run: Run, json: bool) -> None:
    """What a dry run prints: the preflight as JSON, or one line, and the command that trains."""
    content = run.content
    model, looked = content["model"], content["preflight"]
    if out.from_cli():
        if json:
            out.result_json(looked)
        else:
            out.result(
                f"dry run, nothing was written: {model['size']} ({out.human_count(model['parameters'])} parameters), "
                f"{looked['steps']:,} steps, {looked['epochs']:.2f} epochs, about {out.human_seconds(looked['duration']['seconds'])}"
            )
    out.next_commands(content["repeat"])


def closing(run: Run) -> None:
    """The last lines: the figures of the full pass, the command that repeats the run, what to type next."""
    content: dict[str, Any] = run.content
    if content.get("result"):
        bits, loss = content["result"]["bits_per_byte"], content["result"]["loss"]
        out.say(
            f"validation, full pass: {bits['value']:.4f} bits per byte (95 % {bits['low']:.4f} to {bits['high']:.4f}, "
            f"n = {bits['n']}), loss {loss['value']:.4f} a token",
            style="bold",
        )
    again = "the same again, up to rounding" if content.get("resumed") else "the same bits again"
    out.say(f"{again}: {content['repeat']}")
    place, prompt = shlex.quote(str(run.path)), content["plan"]["sample_prompt"] or "The"
    out.next_commands(
        f"ownlm generate {place} {shlex.quote(prompt)}",
        f"ownlm evaluate {place}",
        f"ownlm score {place} {shlex.quote(prompt)}",
    )
