"""What a run will do, looked at before step 1: what the model will see, on how much, for how long, in what memory.

The rows are looked at as ids and targets, whatever made them: a target of -100 is not trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ownlm.corpus.batches import NOT_TRAINED, Batches
from ownlm.corpus.shards import Corpus
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.model.config import ModelConfig
from ownlm.training.memory import free_memory, step_memory, step_of
from ownlm.training.plan import TrainPlan
from ownlm.training.refusals import grams_can_tell, overlap_beyond
from ownlm.training.schedule import learning_rate_factor

MOST_ROWS, MOST_TOKENS = 256, 2**20  # of the sample of rows: read and counted in well under a second
SHOWN, CONTEXT_SHOWN = 200, 60  # characters of the row; of each part of it that is not trained
CURVE = 48  # points of the learning rate


@dataclass(frozen=True)
class Rows:
    """The first rows of a run, in its order.

    Attributes:
        ids: tokens that the model reads, int64 [rows, T].
        targets: what it learns to say after each of them, int64 [rows, T]; -100 is not trained.
        cut: rows that hold a part of a document without its beginning, bool [rows].
        packed: rows that hold more than one document, bool [rows].
    """

    ids: np.ndarray
    targets: np.ndarray
    cut: np.ndarray
    packed: np.ndarray


def rows_of(batches: Batches, document_start: int) -> Rows:
    """The rows that pretraining begins with; every document in them begins with the id `document_start`."""
    count = min(batches.blocks, MOST_ROWS, max(1, MOST_TOKENS // batches.context))
    rows = batches.step(0, 0, count)
    ids, targets = rows[:, :-1], rows[:, 1:]
    begins = ids == document_start
    return Rows(ids, targets, cut=~begins[:, 0], packed=begins[:, 1:].any(axis=1))


def look(
    corpus: Corpus,
    config: ModelConfig,
    plan: TrainPlan,
    batches: Batches,
    seconds_per_step: float,
    allow_overlap: bool,
) -> dict[str, Any]:
    """The preflight of a pretraining run, as run.json holds it (docs/run-folder.md).

    Args:
        seconds_per_step: as the calibration measured it, 0.0 without one.
        allow_overlap: whether overlap beyond the limits was allowed.
    """
    rows = rows_of(batches, corpus.tokenizer.eos_id)
    return {
        "sample": shown_row(corpus.tokenizer, rows.ids[0], rows.targets[0]),
        "rows": {
            "looked_at": len(rows.ids),
            "trained_share": float(np.mean(rows.targets != NOT_TRAINED)),
            "cut_share": float(np.mean(rows.cut)),
            "packed_share": float(np.mean(rows.packed)),
        },
        "steps": plan.max_steps,
        "tokens_per_step": plan.tokens_per_step,
        "tokens_per_epoch": batches.tokens_per_epoch,
        "epochs": plan.max_steps * plan.tokens_per_step / batches.tokens_per_epoch,
        "learning_rate": {
            "adamw": plan.learning_rate,
            "muon": plan.muon_learning_rate,
            "warmup_steps": min(plan.warmup_steps, plan.max_steps),
            "decay_steps": min(plan.decay_steps, plan.max_steps),
            "curve": curve(plan),
        },
        "memory": memory(config, plan),
        "duration": duration(plan, seconds_per_step),
        "overlap": overlap(corpus, allow_overlap),
    }


def shown_row(tokenizer: Tokenizer, ids: np.ndarray, targets: np.ndarray) -> str:
    """The text of a row, special tokens by name, at most about 200 characters.

    Args:
        ids: [T]. targets: [T]; where some are not trained, the trained parts stand in [[double brackets]].
    """
    whole = [*ids.tolist(), *targets[-1:][targets[-1:] != NOT_TRAINED].tolist()]
    trained = [False, *(targets != NOT_TRAINED).tolist()][: len(whole)]
    if all(trained[1:]):
        return _cut(_decoded(tokenizer, whole), SHOWN)
    parts = []
    for learnt, run in groupby(range(len(whole)), key=trained.__getitem__):
        text = _decoded(tokenizer, [whole[place] for place in run])
        parts.append(f"[[{_cut(text, SHOWN)}]]" if learnt else _middle_left_out(text))
    return _cut("".join(parts), 2 * SHOWN)


def _decoded(tokenizer: Tokenizer, ids: list[int]) -> str:
    names = {index: name for name, index in tokenizer.special_ids.items()}
    parts = (
        "".join(names[index] for index in run) if special else tokenizer.decode(list(run))
        for special, run in groupby(ids, key=names.__contains__)
    )
    return "".join(parts).strip("\ufffd")  # a row may begin and end inside a character


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def _middle_left_out(text: str) -> str:
    return text if len(text) <= 2 * CONTEXT_SHOWN else f"{text[:CONTEXT_SHOWN]} … {text[-CONTEXT_SHOWN:]}"


def curve(plan: TrainPlan) -> list[float]:
    """The learning rate as a share of its peak, at evenly spaced steps from the first to the last."""
    count = min(CURVE, plan.max_steps)
    steps = np.linspace(0, plan.max_steps - 1, count).round().astype(int).tolist()
    factors = (
        learning_rate_factor(step, plan.max_steps, plan.warmup_steps, plan.decay_steps) for step in steps
    )
    return [round(factor, 4) for factor in factors]


def memory(config: ModelConfig, plan: TrainPlan) -> dict[str, int]:
    """Predicted bytes of a step, by part, their sum `needed`, and what is `free` now."""
    parts = step_memory(step_of(config, plan))
    return {**parts, "needed": sum(parts.values()), "free": free_memory(plan)}


def duration(plan: TrainPlan, seconds_per_step: float) -> dict[str, Any]:
    """Seconds of training: steps × the measured seconds a step, else predicted from FLOPs and the matmul rate."""
    if seconds_per_step:
        return {
            "seconds": plan.max_steps * seconds_per_step,
            "basis": "measured",
            "seconds_per_step": seconds_per_step,
        }
    a_step = plan.predicted_step_seconds
    return {"seconds": plan.max_steps * a_step, "basis": "predicted", "seconds_per_step": a_step}


def overlap(corpus: Corpus, allow_overlap: bool) -> dict[str, Any]:
    """What of the validation text is in the training text, as `prepare` measured it.

    Returns:
        `known`: "measured", "no validation text", "validation text too short" or "not measured"; when measured
        `ngram`, `share`, `whole_documents` and `sampled` as in corpus.json, and `judged`: whether n-grams of these
        tokens are long enough for the share to count; `beyond`: what is more than a run may have,
        if it was allowed, else ""; `group_by`: what `prepare` never splits between the sides, or None.
    """
    measured = corpus.manifest.get("overlap")
    if measured:
        beyond = overlap_beyond(corpus) if allow_overlap else ""
        found = {"known": "measured", **measured, "judged": grams_can_tell(corpus), "beyond": beyond}
    else:
        missing = "overlap" not in corpus.manifest
        none = corpus.split("validation").num_tokens == 0
        known = "not measured" if missing else "no validation text" if none else "validation text too short"
        found = {"known": known, "beyond": ""}
    return found | {"group_by": corpus.manifest["settings"].get("group_by")}
