"""What a run says about itself before step 1: run.json, the files beside it, the first lines on the screen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ownlm import __version__
from ownlm.console import output as out
from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus
from ownlm.locate import FORMAT
from ownlm.model.checkpoint import write_json
from ownlm.model.config import ModelConfig
from ownlm.model.families import to_hugging_face
from ownlm.training.checkpoint import token_ids
from ownlm.training.draft import Draft
from ownlm.training.plan import TrainPlan
from ownlm.training.run_folder import command_line, environment, repeat_command, write_run


def describe(
    settings: dict[str, Any],
    defaults: dict[str, Any],
    output: Path,
    corpus: Corpus,
    drafted: Draft,
    looked: dict[str, Any],
) -> dict[str, Any]:
    """run.json as it is before step 1; the fields are those of docs/run-folder.md.

    Args:
        settings, defaults: of `pretrain`, by name.
        drafted: model, plan (with its steps) and size.
        looked: the preflight.
    """
    config, plan, size = drafted
    counts = config.parameter_counts()
    train, validation = corpus.split("train"), corpus.split("validation")
    with_defaults = {name: (value, defaults[name]) for name, value in settings.items()}
    again = output if settings["dry_run"] else Path(f"{output}-again")
    return {
        "format": FORMAT,
        "ownlm": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(plan.world_size),
        "repeat": repeat_command(
            corpus.path, again, with_defaults, plan, size if size != "given" else "auto"
        ),
        "settings": {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()},
        "plan": plan.to_json(),
        "preflight": looked,
        "model": {
            "size": size,
            "architecture": config.architecture,
            "parameters": config.num_parameters(),
            "embedding_parameters": counts["embedding"] + counts["position"] + counts["head"],
        },
        "data": {
            "corpus": str(corpus.path.resolve()),
            "hash": corpus.manifest["hash"],
            "train_tokens": train.num_tokens,
            "train_bytes": train.num_bytes,
            "train_documents": train.num_documents,
            "validation_tokens": validation.num_tokens,
            "validation_bytes": validation.num_bytes,
            "bytes_per_token": train.num_bytes / max(train.num_tokens, 1),
            "overlap": corpus.manifest.get("overlap"),
        },
        "tokenizer_sha256": corpus.tokenizer.sha256,
        "environment": environment(plan.device, plan.threads),
        "seed": plan.seed,
        "taught": ["continues text"],
        "cost": {"seconds": 0.0, "tokens": 0, "flops": 0.0},
        "result": {},
        "finished": False,
    }


def prepare_folder(output: Path, corpus: Corpus, config: ModelConfig, content: dict[str, Any]) -> None:
    """run.json (`content`), tokenizer, config.json and generation_config.json: all but the weights.

    run.json comes first: what a full disk leaves is then a run, which --overwrite replaces.
    """
    write_run(output, content)
    tokenizer = corpus.tokenizer
    tokenizer.save(output)
    ids = token_ids(tokenizer)
    write_json(output / "generation_config.json", {**ids, "do_sample": True, "temperature": 0.8})
    write_json(output / "config.json", to_hugging_face(config, ids))


def announce(corpus: Corpus, config: ModelConfig, plan: TrainPlan, size: str, batches: Batches) -> None:
    """Say what will be trained, on how much, with what."""
    counts = config.parameter_counts()
    outside = counts["embedding"] + counts["position"] + counts["head"]
    out.say(
        f"model: {size}, {config.num_hidden_layers} layers × {config.hidden_size} wide, "
        f"{out.human_count(config.num_parameters())} parameters ({out.human_count(outside)} in embeddings and head), context {plan.context}"
    )
    among = f", shared out to {plan.world_size} processes" if plan.world_size > 1 else ""
    each = " each" if among else ""
    epochs = plan.max_steps * plan.tokens_per_step / batches.tokens_per_epoch
    out.say(
        f"plan: {plan.max_steps:,} steps of {plan.tokens_per_step:,} tokens{among} = {epochs:.2f} epochs of "
        f"{out.human_count(corpus.split('train').num_tokens)} tokens; {plan.dtype} on {plan.device}, {plan.threads} threads{each}; "
        f"matmul measured at {plan.peak_flops / 1e9:,.0f} GFLOP/s"
    )
    if plan.compile:
        out.say(
            "blocks go through torch's compiler at the first step, which takes about half a minute (--compile no)"
        )
