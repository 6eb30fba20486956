"""From the settings of a run to its config and plan: everything that is decided but the number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.shards import Corpus
from ownlm.machine.cpu import num_cores
from ownlm.machine.device import choose_device, choose_dtype
from ownlm.machine.measure import matmul_rate
from ownlm.model.checkpoint import load_config
from ownlm.model.config import ModelConfig
from ownlm.training import setup
from ownlm.training.compiled import decide
from ownlm.training.fused import why_not
from ownlm.training.launched import refuse_device
from ownlm.training.memory import free_memory
from ownlm.training.memory_fit import Case, split_to_fit
from ownlm.training.plan import (
    EVAL_ROWS,
    TrainPlan,
    one_length,
    parse_count,
    rows_for,
    steps_for,
    tokens_per_step_for,
)

DEFAULT_MINUTES = 10.0
MATMUL_SIZE = {"cpu": 1024, "cuda": 8192}  # what reaches the peak of each; a GPU needs more to be busy


class Length(NamedTuple):
    """How long to train, as far as the settings say it.

    Attributes:
        seconds: from the command to the written model, or None.
        tokens: to train on, or None.
        chosen: whether a length was given at all.
    """

    seconds: float | None
    tokens: int | None
    chosen: bool


class Draft(NamedTuple):
    """A run without its number of steps: the model, the plan, and the name of the size ("given" with `--from`)."""

    config: ModelConfig
    plan: TrainPlan
    size: str


def length(settings: Mapping[str, Any]) -> Length:
    """The length that the settings give, 10 minutes without one.

    Raises:
        UsageError: two lengths, or one that is none.
    """
    lengths = {name: settings[name] for name in ("minutes", "max_steps", "num_train_epochs", "tokens")}
    one_length(**lengths)
    chosen = any(value is not None for value in lengths.values())
    minutes, epochs = settings["minutes"] if chosen else DEFAULT_MINUTES, settings["num_train_epochs"]
    if minutes is not None and minutes <= 0:
        raise UsageError(f"{minutes} minutes are no time to train.", where="--minutes")
    if epochs is not None and epochs <= 0:
        raise UsageError(f"{epochs:g} times through the text is no training.", where="--num-train-epochs")
    tokens = parse_count(settings["tokens"], "--tokens") if settings["tokens"] is not None else None
    return Length(minutes * 60 if minutes is not None else None, tokens, chosen)


def start_model(name: str, output: Path, corpus: Corpus) -> Path:
    """The folder of the model to go on from.

    Raises:
        UsageError: it lies in the output folder. Refused: its token ids are not those of the corpus.
    """
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.loaded import resolve

    folder = resolve(name)
    if output.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(
            "the model to go on from lies in the output folder and would be replaced.",
            where=folder,
            do=f"-o {output}-on",
        )
    if Tokenizer.load(folder).sha256 != corpus.tokenizer.sha256:
        raise Refused(
            "the model and the corpus have different tokenizers; its token ids would mean other words.",
            where=folder,
            do=f"ownlm prepare … -o another-corpus --tokenizer {folder}",
        )
    return folder


def draft(
    settings: dict[str, Any], corpus: Corpus, start: Path | None, asked: Length, processes: int
) -> Draft:
    """Everything but the number of steps.

    Args:
        settings: of `pretrain`, by name.
        start: the model to go on from, or None.
        asked: how long to train.
        processes: that share out each step.
    """
    seconds = asked.seconds
    device = choose_device(settings["device"])
    refuse_device(device, processes)
    dtype = choose_dtype(settings["dtype"], device)
    threads = settings["threads"] or threads_each(processes)
    train = corpus.split("train")
    context = settings["context"] or min(
        setup.DEFAULT_CONTEXT, max(8, 2 ** ((train.num_tokens // 4).bit_length() - 1))
    )
    if start is not None:
        config, context = _given_model(settings, start, context)
        size = "given"
    else:
        size = settings["size"]
        if size == "auto":
            size = setup.choose_size(seconds, device, dtype, train.num_tokens, processes)
        config = setup.model_config(settings, corpus.tokenizer.vocab_size, size, context)
    torch.set_num_threads(threads)
    rows, accumulation = rows_for(
        tokens_per_step_for(config, seconds),
        context,
        settings["per_device_train_batch_size"],
        settings["gradient_accumulation_steps"],
        processes,
    )
    fused = why_not(config, device, settings["gradient_checkpointing"]) is None
    plan = TrainPlan(
        max_steps=0, context=context, per_device_train_batch_size=rows, gradient_accumulation_steps=accumulation,
        learning_rate=settings["learning_rate"], muon_learning_rate=settings["muon_learning_rate"],
        weight_decay=settings["weight_decay"], max_grad_norm=settings["max_grad_norm"], warmup_steps=0, decay_steps=1,
        eval_steps=1, eval_rows=EVAL_ROWS, save_steps=1, save_total_limit=max(1, settings["save_total_limit"]),
        sample_steps=[], sample_prompt=settings["sample_prompt"] or first_words(corpus), seed=settings["seed"],
        dtype=dtype, device=device, threads=threads, flops_per_token=config.flops_per_token(context),
        peak_flops=processes * matmul_rate(dtype, MATMUL_SIZE.get(device.split(":")[0], 1024), device=device),
        world_size=processes, gradient_checkpointing=settings["gradient_checkpointing"],
        fused=fused,
    )  # fmt: skip
    steps = asked_steps(settings, asked, plan, train.num_tokens) or 0
    expected = seconds or steps * plan.predicted_step_seconds
    plan = dataclasses.replace(plan, compile=decide(settings["compile"], device, fused, expected))
    return Draft(config, split_to_fit(Case(config, plan, settings, size), free_memory(plan)), size)


def asked_steps(
    settings: Mapping[str, Any], asked: Length, plan: TrainPlan, tokens_per_epoch: int
) -> int | None:
    """The steps that the settings ask for; None where they ask for time."""
    return steps_for(
        max_steps=settings["max_steps"],
        tokens=asked.tokens,
        epochs=settings["num_train_epochs"],
        tokens_per_step=plan.tokens_per_step,
        tokens_per_epoch=tokens_per_epoch,
    )


def threads_each(processes: int) -> int:
    """CPU threads of each process by default: its share of the cores."""
    return max(1, num_cores() // processes)


def _given_model(settings: Mapping[str, Any], start: Path, context: int) -> tuple[ModelConfig, int]:
    """(config, context) of a run that goes on from a model; `context` is the default."""
    config = load_config(start)
    context = settings["context"] or min(context, config.max_position_embeddings)
    if context > config.max_position_embeddings:
        raise UsageError(
            f"{context:,} tokens are more than the model's window of {config.max_position_embeddings:,}.",
            where="--context",
        )
    if settings["set"] or settings["size"] != "auto" or settings["architecture"] != "qwen3":
        raise UsageError(
            "--size, --set and --architecture describe a new model; --from brings its own.",
            where="--from",
        )
    return config, context


def first_words(corpus: Corpus) -> str:
    """The default prompt of samples: the first eight tokens of a text that is held out, in its first line."""
    split = corpus.split("validation")
    if not split.num_documents:
        return ""
    # Where a document was cut in two, the held-out part begins with blank lines, or inside a character.
    text = corpus.tokenizer.decode(split.document(0)[1:65]).lstrip("\ufffd \n\t")
    tokens = corpus.tokenizer.encode(text.split("\n")[0])[:8]
    return corpus.tokenizer.decode(tokens).rstrip("\ufffd")


def with_samples(plan: TrainPlan, seconds_per_step: float) -> TrainPlan:
    """Samples at the start, at about 30 and 120 seconds when the speed is known, else at each fifth of the run."""
    if seconds_per_step:
        steps = [0, round(30 / seconds_per_step), round(120 / seconds_per_step)]
    else:
        steps = [plan.max_steps * i // 5 for i in range(5)]
    return dataclasses.replace(plan, sample_steps=sorted({s for s in steps if s < plan.max_steps}))
