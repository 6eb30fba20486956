"""From settings to a `Trainer`: size, model, plan. Rules, not timings, except for `--minutes`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from ownlm.console.errors import UsageError
from ownlm.corpus.batches import Batches, fixed_sample, shifted
from ownlm.corpus.shards import Corpus
from ownlm.machine.cpu import give_freed_memory_back, num_cores
from ownlm.model.checkpoint import load_model
from ownlm.model.config import ModelConfig
from ownlm.model.sizes import SIZES, config_for
from ownlm.model.transformer import Transformer
from ownlm.seeds import derive
from ownlm.training.checkpoint import WholeModel, token_ids
from ownlm.training.compiled import compile_blocks
from ownlm.training.fused import FusedGradients
from ownlm.training.loop import Trainer
from ownlm.training.optimizer import Optimizer
from ownlm.training.parallel import Processes
from ownlm.training.plan import EVAL_SHARE, TrainPlan

CALIBRATION_SECONDS = 8.0
DEFAULT_CONTEXT = 256  # tokens; longer windows cost attention and gain little before about 30M parameters

# Sustained training arithmetic a core does, in FLOP/s: only to choose a size by rule, never shown as a measurement.
ASSUMED_CORE_FLOPS = {"float32": 6e10, "bfloat16": 2.5e11}
ASSUMED_GPU_FLOPS = 1e14
# What training must be able to see of a size, tokens for each weight of the blocks' matrices. Compute-optimal training
# takes about 20 (Hoffmann et al. 2022, arXiv 2203.15556), where every FLOP costs the same; on a CPU those of a wider
# model are cheaper, and runs of minutes did best with far fewer (docs/log.md).
TOKENS_A_WEIGHT = {"cpu": 2, "cuda": 20}
WEIGHTS_A_TOKEN = 5  # at most, of the text: a larger model would learn little text by heart


def choose_size(seconds: float | None, device: str, dtype: str, train_tokens: int, processes: int = 1) -> str:
    """The largest size whose training the time allows and the text can feed, by rule."""
    if seconds is None:
        return "10M"
    on_gpu = device.startswith("cuda")
    rate = ASSUMED_GPU_FLOPS * processes if on_gpu else ASSUMED_CORE_FLOPS[dtype] * min(num_cores(), 16)
    least = TOKENS_A_WEIGHT["cuda" if on_gpu else "cpu"]
    best = "1M"
    for name, row in SIZES.items():
        weights = row.block_parameters
        tokens = rate * seconds / (6 * weights)  # C = 6·N·D
        if tokens >= least * weights and weights <= WEIGHTS_A_TOKEN * train_tokens:
            best = name
    return best


def model_config(settings: dict[str, Any], vocab_size: int, size: str, context: int) -> ModelConfig:
    """The config of a new model: a size's row, the architecture, then every `--set`.

    Raises:
        UsageError: an unknown field or value. Refused: a model that config.json cannot say for this architecture.
    """
    from ownlm.console.settings import parse_assignments
    from ownlm.model.families import to_hugging_face

    config = config_for(size, vocab_size, context)
    if settings["architecture"] != config.architecture:
        config = in_architecture(config, settings["architecture"])
    assignments = parse_assignments(settings["set"])
    if "vocab_size" in assignments:
        raise UsageError(
            "the vocabulary belongs to the corpus.",
            where="--set vocab_size",
            do="ownlm prepare … --vocab-size N",
        )
    if "architecture" in assignments:
        name = assignments["architecture"]
        raise UsageError("has an option of its own.", where="--set architecture", do=f"--architecture {name}")
    config = config.changed(assignments)
    if "hidden_size" in assignments and "num_attention_heads" not in assignments:
        heads = max(1, config.hidden_size // config.head_dim)
        config = dataclasses.replace(config, num_attention_heads=heads, num_key_value_heads=heads)
    to_hugging_face(config, {})  # what cannot be written at the end is refused now
    return config


def in_architecture(config: ModelConfig, architecture: str) -> ModelConfig:
    """The same layers, width and heads in another family's layout."""
    from ownlm.model.families import FAMILIES

    fixed = dict(FAMILIES[architecture].fixed)
    if fixed["mlp"] == "plain":
        # Four widths in two matrices hold what 8/3 widths hold in three; the activation and the tied head are GPT-2's.
        fixed |= {"intermediate_size": 4 * config.hidden_size, "activation": "gelu_tanh"}
        fixed |= {"num_key_value_heads": config.num_attention_heads, "tie_word_embeddings": True}
    return dataclasses.replace(config, architecture=architecture, **fixed)


def build_model(config: ModelConfig, plan: TrainPlan, start: Path | None) -> Transformer:
    """A new model from the seed, or the weights of `--from`."""
    if start is not None:
        model = load_model(start, device=plan.device)
    else:
        model = Transformer(config)
        model.init_weights(derive(plan.seed, "initial weights"))
    model.gradient_checkpointing = plan.gradient_checkpointing
    if plan.gradient_checkpointing and plan.device == "cpu":
        give_freed_memory_back()
    if plan.compile:
        compile_blocks(model)
    return model.to(plan.device)


def build_trainer(
    corpus: Corpus,
    config: ModelConfig,
    plan: TrainPlan,
    run: Path,
    start: Path | None,
    processes: Processes,
) -> Trainer:
    """Model, optimizer, data and plan together, at step 0, on the device of this process."""
    torch.set_num_threads(plan.threads)
    plan = dataclasses.replace(plan, device=processes.device(plan.device))
    model = build_model(config, plan, start)
    optimizer = Optimizer(
        model,
        plan.learning_rate,
        plan.muon_learning_rate,
        plan.weight_decay,
        torch.bfloat16 if plan.dtype == "bfloat16" else torch.float32,
    )
    validation = corpus.split("validation")
    return Trainer(
        gradients=FusedGradients(model, optimizer.iteration_dtype) if plan.fused else None,
        model=model,
        optimizer=optimizer,
        plan=plan,
        batches=Batches(corpus.split("train"), plan.context, plan.rows_per_step, plan.seed),
        byte_lengths=torch.from_numpy(corpus.tokenizer.token_byte_lengths.astype("int64")).to(plan.device),
        run=run,
        weights=WholeModel(model, token_ids(corpus.tokenizer)),
        validation=shifted(fixed_sample(validation, plan.context, plan.eval_rows, plan.seed))
        if validation.num_tokens > 1 and processes.first
        else None,
        processes=processes,
    )


def calibrated_steps(trainer: Trainer, seconds: float) -> tuple[int, float]:
    """(max_steps, seconds a step): steps are timed on a model that is then thrown away.

    All processes make the steps; what counts is the time in the first one.

    Args:
        seconds: what this calibration and training, validation included, may take.
    """
    called = time.monotonic()
    limit = min(CALIBRATION_SECONDS, seconds * 0.05)
    times: list[float] = []
    # Two steps warm up, three are a measure; where steps are slow, the first ones must do.
    while len(times) < 52:
        spent = time.monotonic() - called
        enough = times and (spent >= CALIBRATION_SECONDS - max(times) or (spent >= limit and len(times) >= 5))
        if trainer.processes.any(trainer.processes.first and bool(enough)):
            break
        start = time.monotonic()
        trainer.train_step()
        _synchronize(trainer.plan.device)
        times.append(time.monotonic() - start)
    measured = sorted(times[2:] or times[-1:])
    per_step = measured[len(measured) // 2]
    evaluation = EVAL_SHARE * seconds if trainer.validates else 0.0
    if trainer.validates and time.monotonic() - called < CALIBRATION_SECONDS - per_step:
        start = time.monotonic()
        trainer.validate()
        evaluation = 21 * (time.monotonic() - start)
    # About 21 validations happen on the way, in a short run what their share allows; samples and checkpoints too.
    left = seconds - (time.monotonic() - called) - min(evaluation, EVAL_SHARE * seconds) - 0.02 * seconds
    return max(1, int(left / per_step)), per_step


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
