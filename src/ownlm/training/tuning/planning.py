"""From the settings of `finetune` to its plan: rules over sizes, no timings except for `--minutes`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import torch

from ownlm.console.errors import Refused, UsageError
from ownlm.machine.cpu import num_cores
from ownlm.machine.device import choose_device, choose_dtype
from ownlm.machine.measure import matmul_rate
from ownlm.model.config import ModelConfig
from ownlm.model.lora import ALL_LINEAR, LoraSettings
from ownlm.training.draft import MATMUL_SIZE
from ownlm.training.fused import why_not
from ownlm.training.plan import (
    EVAL_ROWS,
    MOST_STEPS,
    TrainPlan,
    one_length,
    rows_for,
    steps_for,
    tokens_per_step_for,
)
from ownlm.training.tuning.prepare import Prepared

DEFAULT_EPOCHS = {"text": 3.0, "head": 2.0}  # a head on a small model learns its rows by heart in the third
WINDOW = 256  # tokens, where the rows are shorter: several share a window, and attention over it costs little
MOST_TOKENS = 4096  # a step: rows of a task say more than running text
HEAD_ROWS = 32  # a step, at most: one label a row says little, but many small steps did best (docs/log.md)
STEPS_AN_EPOCH = 20  # at least: small data in large steps would be few updates
DECAY_SHARE = 1.0  # of the steps after the warm-up: no plateau (docs/log.md)

# Peaks of AdamW and of Muon (None: AdamW trains everything), by where the model comes from and what is trained
# (docs/log.md). Runs of ours are small and were trained by these optimizers: half their own peaks did best, and new
# heads took them whole. Models from elsewhere were trained with far smaller steps; theirs are the field's.
RATES: dict[tuple[str, str], tuple[float, float | None]] = {
    ("ours", "full"): (2e-3, 1e-2),
    ("ours", "head"): (4e-3, 2e-2),
    ("ours", "lora"): (1e-2, None),
    ("theirs", "full"): (1e-4, 2e-3),
    ("theirs", "head"): (1e-4, 2e-3),
    ("theirs", "lora"): (5e-4, None),
    ("theirs", "encoder"): (5e-5, None),
}


def window_for(longest: int, max_length: int) -> int:
    """Tokens a window: room for the longest row, in multiples of 32, at least 256 where the model has them."""
    return min(max(WINDOW, -(-longest // 32) * 32), max_length)


def chosen_rates(settings: Mapping[str, Any], known: Prepared) -> tuple[float, float | None]:
    """(AdamW's peak, Muon's peak or None where AdamW trains everything): those that were given, else the rule's."""
    way = "lora" if settings["lora"] else "head" if known.form.head is not None else "full"
    origin = "ours" if known.run else "theirs"
    if way != "lora" and not isinstance(known.config, ModelConfig):
        origin, way = "theirs", "encoder"
    adamw, muon = RATES[origin, way]
    given = settings["learning_rate"], settings["muon_learning_rate"]
    if muon is None and given[1] is not None:
        why = "AdamW trains adapters." if way == "lora" else "AdamW trains masked models."
        raise Refused("has no effect here.", where="--muon-learning-rate", why=why, do="--learning-rate")
    return given[0] if given[0] is not None else adamw, given[1] if given[1] is not None else muon


def draft(settings: Mapping[str, Any], known: Prepared) -> TrainPlan:
    """Everything but the number of steps."""
    config, packed = known.config, known.form.packed
    # Where rows are packed a window has one length; else rows of about one length are together.
    context = window_for(known.longest, known.max_length) if packed else known.longest
    tokens = context if packed else max(1, known.tokens // len(known.examples))
    windows = max(1, known.tokens // tokens)
    causal = isinstance(config, ModelConfig)
    device = choose_device(settings["device"])
    dtype = choose_dtype(settings["dtype"], device)
    threads = settings["threads"] or num_cores()
    torch.set_num_threads(threads)
    rows, accumulation = rows_for(
        min(MOST_TOKENS, tokens_per_step_for(config, None)),
        tokens,
        settings["per_device_train_batch_size"],
        settings["gradient_accumulation_steps"],
    )
    if settings["per_device_train_batch_size"] is None:
        rows = max(1, min(rows, windows // (STEPS_AN_EPOCH * accumulation)))
        if known.form.head is not None:
            shared = len(known.examples) / windows  # examples of a window
            rows = max(1, min(rows, round(HEAD_ROWS / shared)))
    if not packed:  # a step visits a row once
        rows = min(rows, len(known.examples))
        accumulation = min(accumulation, -(-len(known.examples) // rows))
    adamw, muon = chosen_rates(settings, known)
    checkpointing = settings["gradient_checkpointing"]
    return TrainPlan(
        max_steps=0, context=context, per_device_train_batch_size=rows, gradient_accumulation_steps=accumulation,
        learning_rate=adamw, muon_learning_rate=muon or 0.0, weight_decay=settings["weight_decay"],
        max_grad_norm=settings["max_grad_norm"], warmup_steps=0, decay_steps=1, eval_steps=1, eval_rows=EVAL_ROWS,
        save_steps=1, save_total_limit=max(1, settings["save_total_limit"]), sample_steps=[], sample_prompt="",
        seed=settings["seed"], dtype=dtype, device=device, threads=threads,
        flops_per_token=config.flops_per_token(context) if causal else 6.0 * config.num_parameters(),
        peak_flops=matmul_rate(dtype, MATMUL_SIZE.get(device.split(":")[0], 1024), device=device),
        gradient_checkpointing=checkpointing,
        fused=causal and packed and not settings["lora"] and why_not(config, device, checkpointing) is None,
    )  # fmt: skip


def steps_of(settings: Mapping[str, Any], plan: TrainPlan, windows: int, kind: str) -> int | None:
    """The number of steps that the settings ask for, some epochs without a length; None where they ask for minutes.

    Args:
        windows: of an epoch. kind: a name of `DEFAULT_EPOCHS`.
    """
    one_length(**{name: settings[name] for name in ("minutes", "max_steps", "num_train_epochs")})
    if settings["minutes"] is not None and settings["minutes"] <= 0:
        raise UsageError(f"{settings['minutes']} minutes are no time to train.", where="--minutes")
    epochs = settings["num_train_epochs"]
    if epochs is not None and epochs <= 0:
        raise UsageError(f"{epochs:g} times through the rows is no training.", where="--num-train-epochs")
    if settings["minutes"] is not None:
        return None
    steps = steps_for(
        max_steps=settings["max_steps"],
        tokens=None,
        epochs=epochs or DEFAULT_EPOCHS[kind],
        tokens_per_step=plan.rows_per_step,
        tokens_per_epoch=windows,
    )
    assert steps is not None
    if steps > MOST_STEPS:
        raise UsageError(f"that would be {steps:,} steps.", do="--max-steps or --minutes with less")
    return steps


def with_steps(settings: Mapping[str, Any], plan: TrainPlan, steps: int) -> TrainPlan:
    """The plan for a number of steps."""
    intervals = {name: settings[name] for name in ("warmup_steps", "eval_steps", "save_steps")}
    planned = plan.with_steps(steps, **intervals)
    decay = max(1, round(DECAY_SHARE * (planned.max_steps - planned.warmup_steps)))
    return dataclasses.replace(planned, decay_steps=decay)


def lora_settings(settings: Mapping[str, Any], given: Collection[str]) -> LoraSettings | None:
    """What is added to the model; None: nothing.

    Raises:
        Refused: options of adapters without --lora.
    """
    if settings["lora"]:
        targets = settings["target_modules"]
        return LoraSettings(
            r=settings["lora_r"],
            alpha=settings["lora_alpha"],
            dropout=settings["lora_dropout"],
            rslora=settings["rslora"],
            target_modules=targets if targets == ALL_LINEAR else tuple(targets.split(",")),
        )
    for name in ("lora_r", "lora_alpha", "lora_dropout", "rslora", "target_modules", "base_dtype"):
        if name in given:
            option = "--" + name.replace("_", "-")
            raise Refused("has no effect without --lora.", where=option, do=f"--lora, or leave {option} out")
    return None
