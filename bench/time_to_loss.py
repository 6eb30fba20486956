"""Seconds to the same loss, ours beside nanoGPT: both from the command to the written model, both scored by one function.

    git clone https://github.com/karpathy/nanoGPT && git -C nanoGPT checkout 3adf61e
    python bench/time_to_loss.py A --nanogpt nanoGPT --train input.txt
    python bench/time_to_loss.py B --nanogpt nanoGPT --train train.jsonl.xz --validation valid.jsonl.xz

A: tinyshakespeare (karpathy/char-rnn, data/tinyshakespeare/input.txt), letters, first 90 % and last 10 %. Theirs: the
README's command for a laptop. Ours: `ownlm pretrain CORPUS --minutes M` for each of --ours-seconds, nothing else chosen.
Scored in nats a letter over all of the last 10 %, 64 letters of context at most, windows that advance by 32.

B: books, one JSON line each. Theirs: train.py in fp32 on our tokenizer's ids, --seconds for each of --sizes (iterations
found by a short run outside the clock), the best counts. Scored in bits a byte over the first 110,000 characters of each
validation book, each book alone, windows of each model's own context that advance by half of it.

Preparing text and scoring are outside the clock, for both. Rounds alternate; ours takes another seed in each, theirs
cannot. --work keeps everything: finished figures of nanoGPT are taken from there, and the table says from when.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections import defaultdict
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nanogpt_side
from loss_tasks import Books, Figure, Letters, Task
from ownlm.evaluation.metrics import ratio_interval, shown
from ownlm.machine.cpu import cpu_name

OURS_SECONDS = {"A": [20.0, 30.0, 40.0, 120.0], "B": [75.0, 121.0, 300.0, 600.0]}


def measure(task: Task) -> list[Figure]:
    """All runs, in turn; what nanoGPT did in this work folder before is not done again."""
    kept_in = task.work / f"nanogpt-{task.threads}-threads.json"
    kept = [Figure(**row) for row in json.loads(kept_in.read_text())] if kept_in.exists() else []
    figures: list[Figure] = []
    for turn in range(task.options.repeats):
        for budget in task.their_budgets():
            found = [f for f in kept if (f.budget, f.round) == (budget, turn)]
            if not found and task.options.only != "ours":
                found = [task.train_theirs(budget, turn)]
                kept += found
                kept_in.write_text(json.dumps([asdict(figure) for figure in kept]))
            figures += found
        if task.options.only != "theirs":
            figures += [task.train_ours(seconds, turn) for seconds in task.options.ours_seconds]
    return figures


def report(task: Task, figures: list[Figure], started: str) -> None:
    """The table, what it means, and one line for RESULTS.md."""
    print(f"\n{cpu_name()}, {task.threads} threads, torch {torch.__version__}; score: {task.measure}")
    print(
        f"{'program':8} {'budget':16} {'seconds':>8} {'steps':>7}  score (95 % of {len(figures[0].nats)} units)"
    )
    for row in figures:
        earlier = f"   from an earlier run, {row.measured}" if row.measured < started else ""
        score = shown(row.score(task.unit))
        print(f"{row.program:8} {row.budget:16} {row.seconds:8.1f} {row.steps:7,}  {score}{earlier}")
    line: dict[str, Any] = {
        "bench": f"time_to_loss {task.name}", "measure": task.measure, "cpu": cpu_name(), "threads": task.threads,
        "torch": torch.__version__, "python": platform.python_version(), "date": started[:10],
    }  # fmt: skip
    line["rows"] = [
        {"program": f.program, "budget": f.budget, "round": f.round, "seconds": round(f.seconds, 1), "steps": f.steps,
         "measured": f.measured, **f.score(task.unit)}
        for f in figures
    ]  # fmt: skip
    line |= compared(task, figures)
    print("\n" + json.dumps(line))


def compared(task: Task, figures: list[Figure]) -> dict[str, float]:
    """Times to nanoGPT's best score, and the scores at its time; medians of the rounds."""
    groups: dict[tuple[str, str], list[Figure]] = defaultdict(list)
    for figure in figures:
        groups[figure.program, figure.budget].append(figure)

    def middle(group: list[Figure]) -> tuple[float, float]:
        scores = [figure.score(task.unit)["value"] for figure in group]
        return statistics.median(scores), statistics.median(figure.seconds for figure in group)

    theirs = [(*middle(group), group) for (program, _), group in groups.items() if program == "nanoGPT"]
    ours = [(*middle(group), group) for (program, _), group in groups.items() if program == "ownlm"]
    if not theirs or not ours:
        return {}
    goal, their_seconds, best = min(theirs, key=lambda row: row[0])
    reached = [seconds for score, seconds, _ in ours if score <= goal]
    found: dict[str, float] = {"goal": goal, "their_seconds": their_seconds}
    print(f"\nnanoGPT's best, {best[0].budget}: {goal:.4f} {task.measure} after {their_seconds:.1f} s")
    if reached:
        found |= {"our_seconds": min(reached), "ratio": their_seconds / min(reached)}
        print(f"reached by ours after {min(reached):.1f} s: {found['ratio']:.2f} × as fast")
    else:
        print("not reached by ours in the budgets given")
    score, seconds, equal = min(ours, key=lambda row: abs(row[1] - their_seconds))
    gap = ratio_interval(
        (np.array(best[0].nats) - np.array(equal[0].nats)) / task.unit, np.array(best[0].sizes), 0
    )
    found |= {"score_at_our_nearest_time": score, "margin": goal - score}
    print(
        f"ours after {seconds:.1f} s: {score:.4f}, {goal - score:+.4f} below nanoGPT's; paired, first round: {shown(gap)}"
    )
    return found


def main() -> None:
    """Measure one task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["A", "B"])
    parser.add_argument("--train", type=Path, required=True, help="A: input.txt; B: .jsonl or .jsonl.xz")
    parser.add_argument("--validation", type=Path, help="B: .jsonl or .jsonl.xz")
    parser.add_argument("--nanogpt", type=Path, help="a checkout; not needed with --only ours")
    parser.add_argument("--ours-seconds", type=float, nargs="+", help="budgets of ours")
    parser.add_argument("--seconds", type=float, default=600.0, help="B: nanoGPT's budget for each size")
    parser.add_argument("--sizes", nargs="+", default=["4x128", "4x256", "6x384"], help="B: nanoGPT's models")
    parser.add_argument("--iterations", type=int, default=2000, help="A: 2000 is the README's command")
    parser.add_argument("--vocab-size", type=int, default=4096, help="B")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of both; default: all cores, and what ours chooses")
    parser.add_argument("--only", choices=["ours", "theirs"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ownlm-time-to-loss")
    options = parser.parse_args()
    if options.only != "ours" and options.nanogpt is None:
        parser.error(f"--nanogpt FOLDER is needed: {nanogpt_side.HOW_TO_GET}")
    if options.task == "B" and options.validation is None:
        parser.error("--validation FILE is needed for B")
    options.ours_seconds = options.ours_seconds or OURS_SECONDS[options.task]
    started = datetime.now().isoformat(sep=" ", timespec="minutes")
    task = Letters(options) if options.task == "A" else Books(options)
    report(task, measure(task), started)


if __name__ == "__main__":
    main()
