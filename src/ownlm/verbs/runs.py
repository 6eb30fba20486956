"""`ownlm runs`: the run folders below a folder, newest first; those that saw a document; a comparison."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, Literal

from ownlm.console import output as out
from ownlm.console.errors import UsageError
from ownlm.console.settings import verb

COMPARE = "compare"


@verb
def runs(
    folder: Literal["compare"] | Path = Path(),
    runs: list[Path] = [],  # noqa: B006 - pydantic copies the default
    *,
    containing: Path | str | None = None,
    output: Path | None = None,
    paired: bool | None = None,
    json: bool = False,
) -> Any:
    """List the runs below a folder, newest first: size, data, steps, loss, bits per byte, time, state.

    Folders are searched four levels deep; checkpoints, hidden folders and virtual environments are left out.
    In every other verb the word `last` means the first run of this list.

    `ownlm runs --containing FILE` lists the runs that were trained on a document, on how much of it and how often.
    The document is compared as a whole, normalised as prepare does it; near duplicates are not found.

    `ownlm runs compare RUN RUN …` writes one page about two to eight runs: the settings that differ, the data,
    figures with paired differences to the first run, curves over tokens and seconds, samples, commands.

    Args:
        folder: where to look, or the word compare (a folder of that name is ./compare).
        runs: with compare: run folders, or `last`.
        containing: a text file, a table or a folder of documents; or the first 8 or more digits of the hash of a
            document or of a corpus.
        output: with compare: the page, compare.html when not given.
        paired: with compare: score the held-out text with every model again for paired differences; when not
            given, where that takes about a minute at most.
        json: print the list, or the comparison, as JSON.

    Returns:
        A dict for each run; with compare one dict, see docs/runs.md.
    """
    if isinstance(folder, str):
        from ownlm.verbs._compare import compare

        if containing is not None:
            raise UsageError(
                "does not go with compare.", where="--containing", do="ownlm runs --containing …"
            )
        return compare(runs, output or Path("compare.html"), paired, json)
    if runs:
        raise UsageError(
            f"one folder is listed, {len(runs) + 1} were given.",
            where=runs[0],
            do=shlex.join(["ownlm", "runs", COMPARE, str(folder), *map(str, runs)]),
        )
    for name, value in (("--output", output), ("--paired", paired)):
        if value is not None:
            raise UsageError("has no effect without compare.", where=name, do="ownlm runs compare RUN RUN")
    if not folder.is_dir():
        raise UsageError("no such folder.", where=folder, do="ownlm runs")
    if containing is not None:
        from ownlm.verbs._containing import containing as list_containing

        return list_containing(folder, os.fspath(containing), json)
    return _list(folder, json)


def _list(folder: Path, as_json: bool) -> list[dict[str, Any]]:
    from ownlm.locate import list_runs

    rows = [_row(run.path, *_checked(run.facts, run.problem)) for run in list_runs(folder)]
    if out.from_cli():
        _show(folder, rows, as_json)
    return rows


# What the table formats: (part of run.json, field, type).
TYPES = (
    ("model", "parameters", int), ("plan", "max_steps", int), ("cost", "tokens", int), ("cost", "seconds", (int, float)),
)  # fmt: skip


def _checked(facts: dict[str, Any], problem: str) -> tuple[dict[str, Any], str]:
    """(what run.json says, what is wrong with it); of a file that somebody else wrote nothing is taken."""
    for part in ("model", "plan", "cost", "result", "data"):
        if not isinstance(facts.get(part) or {}, dict):
            return {}, f"run.json is damaged: {part} is no object"
    for part, field, kind in TYPES:
        value = (facts.get(part) or {}).get(field)
        if value is not None and not isinstance(value, kind):
            return {}, f"run.json is damaged: {part}.{field} is no number"
    return facts, problem


def _row(path: Path, facts: dict[str, Any], problem: str) -> dict[str, Any]:
    """What the list tells about a run; None for what its `run.json` does not say."""
    from ownlm.verbs._lineage import adapter_base

    model, cost, plan = (facts.get(part) or {} for part in ("model", "cost", "plan"))
    result, finished = facts.get("result") or {}, facts.get("finished")
    progress = {} if finished or problem else _progress(path)
    return {
        "run": str(path),
        "created": facts.get("created"),
        "size": model.get("size"),
        "parameters": model.get("parameters"),
        "adapter_of": adapter_base(path),
        "data": (facts.get("data") or {}).get("corpus"),
        "step": plan.get("max_steps") if finished else progress.get("step"),
        "steps": plan.get("max_steps"),
        "tokens": progress.get("tokens") or cost.get("tokens"),
        "loss": result.get("loss"),
        "bits_per_byte": result.get("bits_per_byte"),
        "validation": progress.get("validation"),
        "seconds": progress.get("seconds") or cost.get("seconds"),
        "taught": facts.get("taught"),
        "finished": finished,
        "exported": bool(facts.get("exported")),
        "problem": problem or None,
    }


def _progress(folder: Path) -> dict[str, Any]:
    """How far an unfinished run came: its last step, and its last validation (loss and bits per byte of a sample)."""
    from ownlm.report.log import number, read_log

    log = read_log(folder / "log.jsonl")
    found: dict[str, Any] = {}
    if log.steps:
        last = log.steps[-1]
        found = {name: last.get(name) for name in ("step", "tokens", "seconds")}
    if log.validations:
        last = log.validations[-1]
        found["validation"] = {name: number(last.get(name)) for name in ("step", "loss", "bits_per_byte")}
    return found


def _show(folder: Path, rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        out.result_json(rows)
        return
    if not rows:
        out.say(f"No runs below {folder.resolve()}.")
        out.next_commands("ownlm quickstart", "ownlm prepare YOUR_TEXTS -o corpus")
        return
    headers = ["run", "parameters", "data", "steps", "loss", "bits/byte", "time", "state"]
    out.result_table("", headers, [_cells(row) for row in rows], numeric=(1, 3, 4, 5, 6))
    if any(_figure(row, "bits_per_byte").startswith("~") for row in rows):
        out.say("~ the last validation of a run that is not finished, on a sample of the held-out text")
    done = [shlex.quote(row["run"]) for row in rows if row["finished"]]
    if done:
        commands = [f'ownlm generate {done[0]} "…"', f"ownlm evaluate {done[0]}"]
        out.next_commands(*commands, *([f"ownlm runs compare {done[1]} {done[0]}"] if len(done) > 1 else []))


def _short_path(path: object) -> str:
    """Relative to the current folder where it lies below it."""
    text = str(path or "")
    here = f"{Path.cwd()}{os.sep}"
    return text.removeprefix(here)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["run"],
        out.human_count(row["parameters"]) if row["parameters"] else "",
        _short_path(row["data"]),
        f"{row['steps']:,}" if row["steps"] is not None else "",
        _figure(row, "loss"),
        _figure(row, "bits_per_byte"),
        out.human_seconds(row["seconds"]) if row["seconds"] is not None else "",
        row["problem"] or _state(row),
    ]


def _figure(row: dict[str, Any], name: str) -> str:
    """A figure of the whole held-out text, or '~3.142' for the last sample of it in a run that is not finished."""
    metric, sample = row[name], (row["validation"] or {}).get(name)
    if isinstance(metric, dict) and metric.get("value") is not None:
        return f"{metric['value']:.3f}"
    return f"~{sample:.3f}" if sample is not None else ""


def _state(row: dict[str, Any]) -> str:
    """'finished', 'not finished (step 120)', 'adapter of base, finished', …"""
    state = {True: "finished", False: "not finished"}.get(row["finished"], "unknown")
    if row["exported"]:
        state = "exported"
    elif state == "not finished" and row["step"]:
        state += f" (step {row['step']:,})"
    return f"adapter of {row['adapter_of']}, {state}" if row["adapter_of"] else state
