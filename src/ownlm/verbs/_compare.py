"""`ownlm runs compare`: what differs between runs, in a table, as JSON and on one page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.shards import Corpus
from ownlm.locate import RUN_FILE, Run, find_run, list_runs, read_run
from ownlm.verbs._corpora import Library
from ownlm.verbs._lineage import base_name
from ownlm.verbs._paired import differences, same_held_out_text, why_not

MOST = 8  # more curves in one chart cannot be told apart
# What names a place or a way of starting, and so differs in every run without changing it; and what is measured.
NOT_SETTINGS = {
    "corpus", "output", "config", "json", "overwrite", "resume", "dry_run",
    "flops_per_token", "peak_flops", "sample_steps", "sample_prompt", "world_size", "tokens_per_step",
}  # fmt: skip


def compare(names: Sequence[Path], page: Path, paired: bool | None, as_json: bool) -> dict[str, Any]:
    """Compare runs and write the page; see `ownlm runs`."""
    runs = _open(names)
    if page.is_dir():
        raise UsageError("is a folder; the page is a file.", where=page, do=f"-o {page / 'compare.html'}")
    library = Library((run.path, run.facts.get("data") or {}) for run in runs)
    corpora = [library.find(run.path, run.facts.get("data") or {}) for run in runs]
    found = _compared(runs, corpora)
    found["not_paired"] = why_not(runs, corpora, paired)
    if not found["not_paired"]:
        there = [corpus for corpus in corpora if corpus is not None]
        found["differences"], found["resampled"] = differences(runs, there)
    from ownlm.report.compare import write_comparison

    write_comparison(page, [run.path for run in runs], found)
    found["page"] = str(page)
    if out.from_cli():
        if as_json:
            out.result_json(found)
        else:
            _show(found)
        out.say(f"Page: {page}")
    return found


def _open(names: Sequence[Path]) -> list[Run]:
    """The runs of these names."""
    if not 2 <= len(names) <= MOST:
        known = [str(run.path) for run in list_runs(Path()) if not run.problem][:2]
        given = "one run" if len(names) == 1 else f"{len(names)} runs"
        do = shlex.join(["ownlm", "runs", "compare", *(known if len(known) == 2 else ("RUN", "RUN"))])
        raise UsageError(f"two to {MOST} runs are compared, not {given}.", where="compare", do=do)
    found: list[Run] = []
    for name in names:
        folder = find_run(name)
        if not (folder / RUN_FILE).is_file():
            what = f"a model from elsewhere (no {RUN_FILE}): it has no log and no settings to compare."
            raise Refused(what, where=folder, do=f"ownlm evaluate {shlex.quote(str(folder))} YOUR_TEXT.txt")
        run = read_run(folder)
        if run.problem:
            raise Refused(f"{run.problem}.", where=folder, do="ownlm runs")
        if any(run.path.resolve() == other.path.resolve() for other in found):
            raise UsageError("the same run twice.", where=name, do="ownlm runs")
        found.append(run)
    return found


def _compared(runs: Sequence[Run], corpora: Sequence[Corpus | None]) -> dict[str, Any]:
    """The comparison as far as it follows from run.json and the corpora."""
    facts = [run.facts for run in runs]
    tokenizers = {str(one.get("tokenizer_sha256")) for one in facts}
    machines = {tuple(_machine(one)) for one in facts}
    same: dict[str, bool | None] = {
        "data": len({(one.get("data") or {}).get("hash") for one in facts}) == 1,
        "held_out_text": _same_text(facts, corpora),
        "tokenizer": len(tokenizers) == 1,
        "machine": len(machines) == 1,
    }
    labels = short_names([run.path for run in runs])
    rows = [_figures(run, label, len(tokenizers) == 1) for run, label in zip(runs, labels)]
    return {
        "runs": rows,
        "same": same,
        "notes": [*_notes(same, rows), *_started(runs, labels)],
        "settings": _different([_settings(one) for one in facts]),
        "environment": _different([dict(one.get("environment") or {}) for one in facts]),
        "differences": [],
        "resampled": "",
    }


def _same_text(facts: Sequence[dict[str, Any]], corpora: Sequence[Corpus | None]) -> bool | None:
    """Whether all were scored on the same held-out text; None: that cannot be told."""
    if len({(one.get("data") or {}).get("hash") for one in facts}) == 1:
        return True
    if len({(one.get("data") or {}).get("validation_bytes") for one in facts}) > 1:
        return False
    there = [corpus for corpus in corpora if corpus is not None]
    return same_held_out_text(there) if len(there) == len(corpora) else None


def _machine(facts: dict[str, Any]) -> list[object]:
    environment = facts.get("environment") or {}
    return [environment.get(name) for name in ("cpu", "gpu", "threads", "torch")]


def _figures(run: Run, label: str, same_tokenizer: bool) -> dict[str, Any]:
    """What the table says about a run; losses a token only where all runs have the same tokens."""
    model, data, cost, plan, result = (
        run.facts.get(part) or {} for part in ("model", "data", "cost", "plan", "result")
    )
    tokens, seconds = cost.get("tokens"), cost.get("seconds")
    train = data.get("train_tokens")
    return {
        "run": str(run.path),
        "label": label,
        "finished": run.facts.get("finished"),
        "created": run.facts.get("created"),
        "size": model.get("size"),
        "parameters": model.get("parameters"),
        "data": Path(str(data.get("corpus") or "")).name,
        "data_hash": data.get("hash"),
        "steps": plan.get("max_steps"),
        "tokens": tokens,
        "epochs": tokens / train if tokens and train else None,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if tokens and seconds else None,
        "loss": result.get("loss") if same_tokenizer else None,
        "perplexity": result.get("perplexity") if same_tokenizer else None,
        "bits_per_byte": result.get("bits_per_byte"),
        "repeat": run.facts.get("repeat"),
    }


def _notes(same: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    """What must be known before figures are compared."""
    notes = [
        f"{row['label']} is not finished: it has no closing figures." for row in rows if not row["finished"]
    ]
    if not same["tokenizer"]:
        notes.append(
            "The runs have different tokenizers: a loss a token means another amount of text in each, so it is left "
            "out. Bits per byte compare."
        )
    if same["held_out_text"] is False:
        notes.append("The held-out text is not the same: bits per byte and losses do not compare.")
    if same["held_out_text"] is None:
        notes.append(
            "Whether the held-out text is the same cannot be told: a corpus is gone or was made anew."
        )
    if not same["machine"]:
        notes.append("The runs had other processors, threads or versions of torch: seconds do not compare.")
    return notes


def _started(runs: Sequence[Run], labels: Sequence[str]) -> list[str]:
    """That tokens and seconds of a run are not all there was."""
    return [
        f"{label} went on from {base}: tokens, time and curves are those of this run alone."
        for run, label in zip(runs, labels)
        if (base := base_name(run)) is not None
    ]


def _settings(facts: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were given, or where the plan decided, as it did."""
    given, plan = dict(facts.get("settings") or {}), dict(facts.get("plan") or {})
    for assignment in given.pop("set", None) or []:
        name, _, value = str(assignment).partition("=")
        given[f"set {name}"] = value
    return {name.strip("_"): value for name, value in {**given, **plan}.items() if name not in NOT_SETTINGS}


def _different(columns: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """name -> value of each run, for the names whose values differ; None where a run has no such name."""
    names = dict.fromkeys(name for column in columns for name in column)
    rows = {name: [column.get(name) for column in columns] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row[1:])}


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as they need to differ; a page is shown to others, and paths tell of a machine."""
    parts = [path.resolve().parts for path in paths]
    count = 1
    while len({one[-count:] for one in parts}) < len(parts):
        count += 1
    return [str(Path(*one[-count:])) for one in parts]


# ---- in words


def _show(found: dict[str, Any]) -> None:
    from ownlm.report.compare import figure_rows, setting_rows

    labels = [row["label"] for row in found["runs"]]
    numeric = tuple(range(1, len(labels) + 1))
    rows = [[name, *cells] for name, cells in figure_rows(found)]
    out.result_table("", ["", *labels], rows, numeric=numeric)
    settings = [[name, *cells] for name, cells in setting_rows(found["settings"])]
    if settings:
        out.result("")
        out.result_table("Settings that differ", ["", *labels], settings)
    else:
        out.result("\nNo setting differs.")
    for note in found["notes"]:
        out.say(note)
    if found["not_paired"]:
        out.say(f"No paired difference: {found['not_paired']}.")
    else:
        out.say(f"Differences: bits per byte less those of {labels[0]}, on the same {found['resampled']}.")
