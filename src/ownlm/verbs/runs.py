"""`ownlm runs`: the run folders below a folder, newest first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ownlm.console import output
from ownlm.console.errors import UsageError
from ownlm.console.settings import verb


@verb
def runs(folder: Path = Path(), *, json: bool = False) -> list[dict[str, Any]]:
    """List the runs below a folder, newest first: size, data, steps, bits per byte, time, state.

    Folders are searched four levels deep; checkpoints, hidden folders and virtual environments are left out.
    In every other verb the word `last` means the first run of this list.

    Args:
        folder: where to look.
        json: print the list as JSON.
    """
    from ownlm.locate import list_runs

    if not folder.is_dir():
        raise UsageError("no such folder.", where=folder, do="ownlm runs")
    rows = [_row(run.path, run.facts, run.problem) for run in list_runs(folder)]
    if output.from_cli():
        _show(folder, rows, json)
    return rows


def _row(path: Path, facts: dict[str, Any], problem: str) -> dict[str, Any]:
    """What the list tells about a run; None for what its `run.json` does not say."""
    model, cost, plan = (facts.get(part) or {} for part in ("model", "cost", "plan"))
    result = facts.get("result") or {}
    return {
        "run": str(path),
        "created": facts.get("created"),
        "size": model.get("size"),
        "parameters": model.get("parameters"),
        "data": (facts.get("data") or {}).get("corpus"),
        "steps": plan.get("max_steps"),
        "tokens": cost.get("tokens"),
        "bits_per_byte": result.get("bits_per_byte"),
        "seconds": cost.get("seconds"),
        "taught": facts.get("taught"),
        "finished": facts.get("finished"),
        "exported": bool(facts.get("exported")),
        "problem": problem or None,
    }


def _show(folder: Path, rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.result_json(rows)
        return
    if not rows:
        output.say(f"No runs below {folder.resolve()}.")
        output.next_commands("ownlm quickstart", "ownlm prepare YOUR_TEXTS -o corpus")
        return
    headers = ["run", "parameters", "data", "steps", "bits/byte", "time", "state"]
    output.result_table("", headers, [_cells(row) for row in rows], numeric=(1, 3, 4, 5))
    done = [row["run"] for row in rows if row["finished"]]
    if done:
        output.next_commands(f'ownlm generate {done[0]} "…"', f"ownlm evaluate {done[0]}")


def _short_path(path: object) -> str:
    """Relative to the current folder where it lies below it."""
    text = str(path or "")
    here = f"{Path.cwd()}{os.sep}"
    return text.removeprefix(here)


def _cells(row: dict[str, Any]) -> list[str]:
    bits = row["bits_per_byte"]
    state = {True: "finished", False: "not finished"}.get(row["finished"], "unknown")
    if row["exported"]:
        state = "exported"
    return [
        row["run"],
        output.human_count(row["parameters"]) if row["parameters"] else "",
        _short_path(row["data"]),
        f"{row['steps']:,}" if row["steps"] is not None else "",
        f"{bits['value']:.3f}" if isinstance(bits, dict) and bits.get("value") is not None else "",
        output.human_seconds(row["seconds"]) if row["seconds"] is not None else "",
        row["problem"] or state,
    ]
