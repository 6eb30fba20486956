"""What a fine-tuning run will do, looked at before step 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ownlm.console import output as out
from ownlm.corpus.batches import TokenRows
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.tasks.lengths import summary
from ownlm.training import preflight, preflight_shown
from ownlm.training.plan import TrainPlan
from ownlm.training.tuning.packed import Packed
from ownlm.training.tuning.texts import Counted

WORTH_SEEING = 0.02  # share of tokens or rows from which something is said in a line of its own


def look(
    packed: Packed,
    counted: Counted,
    plan: TrainPlan,
    seconds_per_step: float,
    held_out: int,
    overlap: Sequence[tuple[str, str]],
    memory: Mapping[str, int],
) -> dict[str, Any]:
    """The preflight as run.json holds it.

    Args:
        counted: of the rows to train on.
        seconds_per_step: as a calibration measured it, 0.0 without one.
        held_out: rows. overlap: held-out inputs that are trained too.
    """
    first = packed.pairs(0, 0, 1)
    trained = sum(int(text.trained[1:].sum()) for text in packed.texts)
    places = sum(text.places for text in packed.texts)
    return {
        "sample": shown(packed.tokenizer, first),
        "rows": {
            "train": len(packed.texts),
            "held_out": held_out,
            "windows": packed.windows,
            "filled": packed.filled,
            "trained_tokens": trained,
            "trained_share": trained / max(1, places),
            "length": summary(counted.lengths),
            "truncated": counted.cut,
            "answers_truncated": counted.answers_cut,
            "dropped": counted.dropped,
            "endless_answers": counted.endless,
            "straddling": counted.straddling,
        },
        "steps": plan.max_steps,
        "tokens_per_step": plan.tokens_per_step,
        "tokens_per_epoch": packed.tokens_per_epoch,
        "epochs": plan.max_steps * plan.rows_per_step / packed.windows,
        "learning_rate": rate(plan),
        "memory": dict(memory),
        "duration": preflight.duration(plan, seconds_per_step),
        "overlap": {"both_sides": len(overlap), "first": list(overlap[0]) if overlap else None},
    }


def rate(plan: TrainPlan) -> dict[str, Any]:
    """Peaks of the learning rate and its course."""
    return {
        "adamw": plan.learning_rate,
        "muon": plan.muon_learning_rate,
        "warmup_steps": min(plan.warmup_steps, plan.max_steps),
        "decay_steps": min(plan.decay_steps, plan.max_steps),
        "curve": preflight.curve(plan),
    }


def shown(tokenizer: Tokenizer, rows: TokenRows) -> str:
    """The first text of a window, what is trained of it in [[double brackets]]."""
    assert rows.starts is not None
    ids, targets, starts = rows.ids[0], rows.targets[0], rows.starts[0]
    end = int(np.argmax(starts > 0)) if (starts > 0).any() else len(ids)
    return preflight.shown_row(tokenizer, ids[:end], targets[:end])


def show(found: Mapping[str, Any]) -> None:
    """Say what the run will do, in a handful of lines on stderr."""
    rows = found["rows"]
    encoding = out.console().encoding
    length = rows["length"]
    lines = {
        "first row": preflight_shown.fitting(
            found["sample"].replace("\n", preflight_shown.LINE_END), encoding
        ),
        "rows": f"{rows['train']:,} to train on, {rows['held_out']:,} held out; {length['median']:,} tokens in the median, "
        f"the longest {length['longest']:,}",
        "trained": f"{rows['trained_share']:.0%} of the tokens ({out.human_count(rows['trained_tokens'])}); windows of "
        f"{found['tokens_per_epoch'] // max(1, rows['windows']):,} tokens are {rows['filled']:.0%} full",
        "rate": preflight_shown.rate(found["learning_rate"], preflight_shown.levels(encoding)),
        "memory": preflight_shown.memory(found["memory"]),
        "time": preflight_shown.time(found["duration"]),
    }
    for name, line in lines.items():
        out.say(f"{name:<12}{line}")
    _warn(rows, found["overlap"])


def _warn(rows: Mapping[str, Any], overlap: Mapping[str, Any]) -> None:
    if rows["dropped"]:
        out.warn(f"{rows['dropped']:,} rows are longer than --max-length and are left out.")
    if rows["truncated"]:
        out.warn(
            f"{rows['truncated']:,} rows are cut at --max-length; {rows['answers_truncated']:,} of them lose a part of "
            "their answer."
        )
    if rows["endless_answers"] > WORTH_SEEING * max(1, rows["train"]):
        out.warn(
            f"{rows['endless_answers']:,} answers have no token that ends them: the model does not learn to stop there."
        )
    if overlap["both_sides"]:
        out.warn(f"{overlap['both_sides']:,} held-out inputs are trained too: figures on them are too good.")
