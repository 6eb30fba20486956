"""Plans that are refused before step 1 because the run would not be what it seems: exit code 3, with the fix."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Corpus
from ownlm.model.config import ModelConfig
from ownlm.training.plan import TrainPlan, rows_for, tokens_per_step_for

MOST_OVERLAP = 0.2  # share of the validation 13-grams in the training text; above it figures measure memory
# Thirteen letters of a language come again and again without any copying; thirteen tokens of this many bytes do not.
LEAST_GRAM_BYTES = 20

# What a run of no steps never reads; the rest says what is written, or how it is validated and sampled.
OF_STEPS = (
    "learning_rate", "muon_learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "gradient_accumulation_steps",
    "eval_steps", "save_steps", "save_total_limit", "logging_steps", "on_divergence", "allow_overlap",
    "gradient_checkpointing", "compile",
)  # fmt: skip


# What --resume may be given beside the settings of the run: words about the command, and what no weight depends on
# (a run that was not stopped has skipped nothing, so it may go on with either).
CHANGED_WITH_RESUME = ("on_divergence", "report_to")
# How many rows are computed at once, for a run that memory ran out on (memory_fit.py).
PIECES = ("per_device_train_batch_size", "gradient_accumulation_steps")
FREE_WITH_RESUME = (
    "corpus", "output", "resume", "json", "config", *CHANGED_WITH_RESUME, *PIECES, "gradient_checkpointing",
)  # fmt: skip


def idle_settings(given: Collection[str], settings: Mapping[str, Any], corpus: Corpus) -> None:
    """Refuse settings that were given and change nothing beside the others.

    Args:
        given: names of the settings that were really given, with their default or not.
        settings: all of them, by name.
    """
    if settings["max_steps"] == 0:
        for name in OF_STEPS:
            if name in given:
                raise _idle(name, "--max-steps 0", "No step is trained.")
    if settings["save_steps"] == 0 and "save_total_limit" in given:
        raise _idle("save_total_limit", "--save-steps 0", "The only checkpoint is then the last one.")
    if "eval_steps" in given and corpus.split("validation").num_tokens < 2:
        raise _idle("eval_steps", f"{corpus.path}", "This corpus has no validation text.")


def idle_with_resume(given: Collection[str], settings: Mapping[str, Any]) -> None:
    """Refuse `--overwrite` and `--dry-run` beside `--resume`."""
    if "overwrite" in given and settings["overwrite"]:
        raise _idle("overwrite", "--resume", "A run that goes on is not replaced.")
    if "dry_run" in given and settings["dry_run"]:
        why = 'What was decided and checked before step 1 is in run.json, under "plan" and "preflight".'
        raise _idle("dry_run", "--resume", why)


def other_run(
    content: Mapping[str, Any], given: Collection[str], settings: Mapping[str, Any], run: Path
) -> None:
    """Refuse settings beside `--resume` that are not those of the run.

    Args:
        content: its run.json.
    """
    idle_with_resume(given, settings)
    for name, value in settings.items():
        if name not in given or name in FREE_WITH_RESUME:
            continue
        if str(value) != str(content["settings"].get(name)):
            raise UsageError(
                f"--resume goes on with the settings of the run: {name} was {content['settings'].get(name)}, now {value}.",
                where=run,
                do=f"leave it out, or start another run with --from {run}",
            )


def change_with_resume(
    content: dict[str, Any], given: Collection[str], settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a run that goes on: those of its run.json, `content`, which takes over what may be given now."""
    recorded: dict[str, Any] = content["settings"]
    for name in CHANGED_WITH_RESUME:
        recorded[name] = settings[name] if name in given else recorded.get(name, defaults[name])
    if recorded["on_divergence"] == "skip" and "--on-divergence" not in content["repeat"]:
        content["repeat"] += " --on-divergence skip"
    return recorded


def _idle(name: str, beside: str, why: str) -> Refused:
    option = "--" + name.replace("_", "-")
    return Refused(f"has no effect with {beside}.", where=option, why=why, do=f"leave {option} out")


def training_text(
    config: ModelConfig,
    plan: TrainPlan,
    corpus: Corpus,
    batches: Batches,
    settings: Mapping[str, Any],
    seconds: float | None,
) -> None:
    """Refuse a corpus that this plan cannot learn from, or whose figures would say nothing.

    Args:
        settings: of `pretrain`, by name.
        seconds: the time that was asked for, or None.
    """
    vocabulary(config, corpus)
    micro_batches(config, plan, settings, seconds)
    few_tokens(plan, corpus, batches)
    if not settings["allow_overlap"]:
        overlap(corpus)


def vocabulary(config: ModelConfig, corpus: Corpus) -> None:
    """Refuse a model without an embedding for every id of the corpus; more of them than ids are padding."""
    ids = corpus.tokenizer.vocab_size
    if config.vocab_size < ids:
        raise Refused(
            f"the model has {config.vocab_size:,} embeddings, the corpus {ids:,} token ids.",
            where=corpus.path,
            why="Some tokens would have none.",
            do="ownlm prepare … -o another-corpus --tokenizer MODEL, or leave out --from",
        )


def micro_batches(
    config: ModelConfig, plan: TrainPlan, settings: Mapping[str, Any], seconds: float | None
) -> None:
    """Refuse more micro-batches than rows to share out among them."""
    if settings["per_device_train_batch_size"] is not None:
        return
    rows, _ = rows_for(tokens_per_step_for(config, seconds), plan.context, None, None)
    count = plan.gradient_accumulation_steps
    if count > rows:
        raise Refused(
            f"{count:,} micro-batches are more than the {rows:,} rows of a step.",
            where="--gradient-accumulation-steps",
            do=f"--gradient-accumulation-steps {rows}, or --per-device-train-batch-size 1 for steps of {count:,} rows",
        )


def few_tokens(plan: TrainPlan, corpus: Corpus, batches: Batches) -> None:
    """Refuse training text that does not fill one batch."""
    if batches.blocks >= plan.rows_per_step:
        return
    rows = max(1, batches.blocks // plan.gradient_accumulation_steps)
    do = f"--per-device-train-batch-size {rows}"
    if plan.gradient_accumulation_steps > batches.blocks:
        do += " --gradient-accumulation-steps 1"
    raise Refused(
        f"one batch takes {plan.rows_per_step:,} rows of {plan.context:,} tokens, the training text has "
        f"{batches.blocks:,}.",
        where=corpus.path,
        why="The same text would be in a batch more than once.",
        do=f"ownlm pretrain {shlex.quote(str(corpus.path))} … {do}, a smaller --context, or more text",
    )


def overlap_beyond(corpus: Corpus) -> str:
    """What of the validation text is in the training text, when it is more than a run may have; else ""."""
    measured = corpus.manifest.get("overlap")
    if not measured:
        return ""
    share, whole = measured["share"]["value"], measured["whole_documents"]
    said = []
    if share > MOST_OVERLAP and grams_can_tell(corpus):
        grams = f"{share:.0%} of the validation {measured['ngram']}-grams"
        said.append(f"{grams} (more than {MOST_OVERLAP:.0%})")
    if whole:
        said.append(f"{whole:,} validation {'document' if whole == 1 else 'documents'} as a whole")
    return " and ".join(said)


def grams_can_tell(corpus: Corpus) -> bool:
    """Whether the 13-grams of this tokenizer are long enough to be copies when they are found again."""
    measured, tokenizer = corpus.manifest["overlap"], corpus.manifest["tokenizer"]
    return bool(measured["ngram"] * tokenizer["bytes_per_token"] >= LEAST_GRAM_BYTES)


def overlap(corpus: Corpus) -> None:
    """Refuse validation text that is in the training text: its figures would measure memory."""
    beyond = overlap_beyond(corpus)
    if beyond:
        folder = shlex.quote(str(corpus.path))
        raise Refused(
            f"the training text holds {beyond}.",
            where=corpus.path,
            why="The loss on it would say how well the model remembers, not how well it predicts.",
            do="ownlm prepare … --validation OTHER_TEXT, or --group-by so that what belongs together stays on one "
            f"side; or, knowing it: ownlm pretrain {folder} … --allow-overlap",
        )
