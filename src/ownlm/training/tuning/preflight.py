"""What a fine-tuning run will do, looked at before step 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ownlm.console import output as out
from ownlm.corpus.batches import NOT_TRAINED, TokenRows
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.tasks.lengths import summary
from ownlm.training import preflight, preflight_shown
from ownlm.training.plan import TrainPlan
from ownlm.training.tuning.head_trainer import HeadRows
from ownlm.training.tuning.packed import Packed
from ownlm.training.tuning.prepare import Prepared

WORTH_SEEING = 0.02  # share of tokens or rows from which something is said in a line of its own


def look(
    known: Prepared,
    source: Packed | HeadRows,
    plan: TrainPlan,
    seconds_per_step: float,
    memory: Mapping[str, int],
) -> dict[str, Any]:
    """The preflight as run.json holds it.

    Args:
        seconds_per_step: as a calibration measured it, 0.0 without one.
    """
    counted = known.counted
    trained = sum(int((np.asarray(example.targets) != NOT_TRAINED).sum()) for example in known.examples)
    windows = source.windows if isinstance(source, Packed) else len(known.examples)
    return {
        "sample": _sample(known, source),
        "rows": {
            "train": len(known.train),
            "held_out": len(known.held_out),
            "windows": windows,
            "filled": source.filled if isinstance(source, Packed) else 1.0,
            "trained_tokens": trained,
            "trained_share": trained / max(1, known.tokens),
            "length": summary(counted.lengths),
            "truncated": counted.cut,
            "answers_truncated": counted.answers_cut,
            "dropped": counted.dropped,
            "endless_answers": counted.endless,
            "straddling": counted.straddling,
        },
        "labels": _labels(known),
        "steps": plan.max_steps,
        "rows_per_step": plan.rows_per_step,
        "epochs": plan.max_steps * plan.rows_per_step / windows,
        "learning_rate": rate(plan),
        "memory": dict(memory),
        "duration": preflight.duration(plan, seconds_per_step),
        "overlap": {
            "both_sides": len(known.both_sides),
            "first": list(known.both_sides[0]) if known.both_sides else None,
        },
    }


def _labels(known: Prepared) -> list[str] | None:
    """Those of a head, [] where it marks places; None without a head."""
    head = known.form.head
    if head is None:
        return None
    return [] if head.kind == "question-answering" else list(head.labels)


def _sample(known: Prepared, source: Packed | HeadRows) -> str:
    """The first row as it is read, and what is learnt of it."""
    tokenizer, head = known.form.tokenizer, known.form.head
    if head is None:
        assert isinstance(source, Packed)
        return shown(tokenizer, source.pairs(0, 0, 1))
    first = known.examples[0]
    targets = [int(target) for target in first.targets if target != NOT_TRAINED]
    if head.kind != "question-answering":
        said = ", ".join(head.labels[target] for target in targets[:8])
    elif any(targets):
        said = f"places {targets[0]:,} to {targets[-1]:,}"
    else:
        said = "not in it"
    ids = np.array(first.ids, np.int64)
    return f"{preflight.shown_row(tokenizer, ids[:-1], ids[1:])} → {said}"


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
        "trained": _trained(found),
        "rate": preflight_shown.rate(found["learning_rate"], preflight_shown.levels(encoding)),
        "memory": preflight_shown.memory(found["memory"]),
        "time": preflight_shown.time(found["duration"]),
    }
    for name, line in lines.items():
        out.say(f"{name:<12}{line}")
    _warn(rows, found["overlap"])


def _trained(found: Mapping[str, Any]) -> str:
    rows, labels = found["rows"], found["labels"]
    if labels == []:
        return f"{rows['windows']:,} windows: where the answer begins and ends, or that it is not there"
    if labels is not None:
        named = ", ".join(labels[:8]) + (" …" if len(labels) > 8 else "")
        return f"{rows['trained_tokens']:,} labels: {named}"
    tokens = out.human_count(rows["trained_tokens"])
    return f"{rows['trained_share']:.0%} of the tokens ({tokens}); windows are {rows['filled']:.0%} full"


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
