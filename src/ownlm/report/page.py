"""`report.html`: what a run learned, from what, how, and how to do it again, in one file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ownlm.console.errors import UsageError
from ownlm.report.data import corpus_rows, corpus_steps
from ownlm.report.facts import fact_rows, metric_text
from ownlm.report.figures import figures
from ownlm.report.log import Log, number, read_log, records
from ownlm.report.tasks import tasks_shown

TEMPLATES = Path(__file__).parent
MAX_SAMPLES = 12
MAX_SAMPLE_CHARACTERS = 4000
MAX_JSON_BYTES = 64 * 2**20


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder, from `run.json`, `log.jsonl`, `facts.json` and the corpus.

    Only `run.json` must be there; whatever else is missing is left out, and what could not be read is said.

    Returns:
        The path of the page.

    Raises:
        UsageError: there is no readable `run.json`.
    """
    from jinja2 import Environment, FileSystemLoader

    run, problem = _read(run_folder / "run.json")
    if run is None:
        raise UsageError(f"not a run folder ({problem}).", where=run_folder, do="ownlm runs")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        metric=metric_text, cell=cell, bytes=_bytes, count=_count, duration=_duration, printable=printable
    )
    page = environment.get_template("report.html").render(**_content(run_folder, run))
    path = run_folder / "report.html"
    unfinished = run_folder / "report.html.part"
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)
    return path


def _content(run_folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The names that the template uses."""
    log = read_log(run_folder / "log.jsonl")
    facts, facts_problem = _read(run_folder / "facts.json")
    corpus, corpus_problem = _corpus(run_folder, _part(run, "data"))
    rows = fact_rows(facts or {}, run)
    samples, left_out = _samples(log, facts or {})
    tasks, task_problems = tasks_shown(run_folder)
    notices = [*_log_notices(log), facts_problem, corpus_problem, *task_problems]
    if run.get("finished") is not True:
        notices.insert(0, "This run is not finished: figures are those so far.")
    return {
        "name": run_folder.resolve().name,
        "run": run,
        "glance": _glance(run),
        # The name only: a page is shown to others, and paths tell about the machine.
        "corpus_name": Path(str(_part(run, "data").get("corpus") or "")).name,
        "facts": rows,
        "tasks": tasks,
        "compared": any(len(row.bars) > 1 for row in rows),
        "figures": figures(log),
        "samples": samples,
        "samples_left_out": left_out,
        "corpus": corpus,
        "corpus_rows": corpus_rows(corpus or {}),
        "steps": corpus_steps(corpus or {}),
        "tables": [
            (title, flat(_part(run, part)))
            for title, part in (
                ("Model", "model"),
                ("Plan", "plan"),
                ("Settings", "settings"),
                ("Environment", "environment"),
            )
        ],
        "notices": [notice for notice in notices if notice],
    }


def _part(run: dict[str, Any], name: str) -> dict[str, Any]:
    part = run.get(name)
    return part if isinstance(part, dict) else {}


def _read(path: Path) -> tuple[dict[str, Any] | None, str]:
    """(content, "") of a JSON object, or (None, why not); a missing optional file needs no reason."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None, f"{path.name} is larger than {MAX_JSON_BYTES >> 20} MiB"
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, f"no {path.name}" if path.name == "run.json" else ""
    except (OSError, ValueError) as error:
        return None, f"{path.name} cannot be read: {error}"
    return (content, "") if isinstance(content, dict) else (None, f"{path.name} is not a JSON object")


def _corpus(run_folder: Path, data: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The manifest of the corpus that was trained on, when it is still where it was, and the same."""
    written = data.get("corpus")
    if not isinstance(written, str) or not written:
        return None, ""
    for folder in (Path(written), run_folder / written, run_folder.parent / Path(written).name):
        manifest, _ = _read(folder / "corpus.json")
        if manifest is None:
            continue
        if data.get("hash") and manifest.get("hash") != data["hash"]:
            return (
                None,
                f"The corpus {Path(written).name} has changed since this run; its counts are not shown.",
            )
        return manifest, ""
    return None, f"The corpus {Path(written).name} is not reachable from here; its counts are not shown."


def _log_notices(log: Log) -> list[str]:
    notices = []
    if log.not_finite:
        first, count = log.not_finite[0], len(log.not_finite)
        steps = f"{count:,} of {len(log.steps):,} logged steps"
        notices.append(f"{steps} have a loss that is no number, the first is step {first:,}.")
    if log.unreadable:
        notices.append(f"{log.unreadable:,} lines of log.jsonl are no JSON objects and were not used.")
    return notices


def _samples(log: Log, facts: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """(samples in order of time, how many were left out): the first, the last and evenly between."""
    prompt = facts.get("prompt")
    found = [{"prompt": prompt, **entry} for entry in records(facts, "samples")] or log.samples
    kept = found
    if len(found) > MAX_SAMPLES:
        kept = [found[round(i * (len(found) - 1) / (MAX_SAMPLES - 1))] for i in range(MAX_SAMPLES)]
    shown = []
    for entry in kept:
        start, text = printable(entry.get("prompt")), printable(entry.get("text"))
        # Some texts repeat their prompt: it is shown once, and told apart from what the model wrote.
        written = text.removeprefix(start)
        shown.append(
            {
                "seconds": number(entry.get("seconds")),
                "step": number(entry.get("step")),
                "prompt": start,
                "text": written[:MAX_SAMPLE_CHARACTERS],
                "cut": max(0, len(written) - MAX_SAMPLE_CHARACTERS),
            }
        )
    return shown, len(found) - len(kept)


def printable(text: object) -> str:
    """Text with the control characters that HTML forbids made visible."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(text or ""))


def _glance(run: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, figure) for the line of figures on top; only those that are known."""
    model, cost, data = _part(run, "model"), _part(run, "cost"), _part(run, "data")
    seconds, tokens, mfu = number(cost.get("seconds")), number(cost.get("tokens")), number(cost.get("mfu"))
    parameters, embedding = number(model.get("parameters")), number(model.get("embedding_parameters"))
    rows = [
        ("parameters", _count(parameters)),
        ("in embeddings", _count(embedding)),
        ("training text", _bytes(number(data.get("train_bytes")))),
        ("tokens seen", _count(tokens)),
        ("time", _duration(seconds)),
        ("tokens a second", f"{tokens / seconds:,.0f}" if tokens and seconds else ""),
        ("of the matmul rate (MFU)", f"{mfu:.0%}" if mfu is not None else ""),
    ]
    return [(what, figure) for what, figure in rows if figure]


def flat(content: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) rows."""
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and value and set(value) != {"value", "low", "high", "n"}:
            rows += flat(value, f"{name}.")
        else:
            rows.append((name, cell(value)))
    return rows


def cell(value: object) -> str:
    """A value as a table shows it."""
    if value is None or value == [] or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return metric_text(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _bytes(value: object) -> str:
    from ownlm.console.output import human_bytes

    size = number(value)
    return human_bytes(size) if size is not None else ""


def _count(value: object) -> str:
    from ownlm.console.output import human_count

    count = number(value)
    return human_count(count) if count is not None else ""


def _duration(value: object) -> str:
    from ownlm.console.output import human_seconds

    seconds = number(value)
    return human_seconds(seconds) if seconds is not None else ""
