"""Several runs on one HTML page, beside each other; like the report it needs no network and holds no script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ownlm.console.output import human_count, human_seconds
from ownlm.report.chart import Figure, Series, figure
from ownlm.report.facts import figure_text, metric_text
from ownlm.report.figures import SMOOTHING
from ownlm.report.log import Log, number, read_log, smooth, thin
from ownlm.report.page import MAX_SAMPLE_CHARACTERS, TEMPLATES, cell, printable

START_SHARE = (
    0.05  # of the steps, left out of the curves: they would fill them with the fall from an untrained model
)
MANY_STEPS = 100  # below which no step is left out


def write_comparison(page: Path, runs: Sequence[Path], compared: dict[str, Any]) -> None:
    """Write the page.

    Args:
        page: the file; replaced when it is there.
        runs: the run folders, for their logs.
        compared: what `ownlm runs compare --json` prints.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    logs = [read_log(run / "log.jsonl") for run in runs]
    labels = [str(row["label"]) for row in compared["runs"]]
    text = environment.get_template("compare.html").render(
        labels=labels,
        compared=compared,
        figure_rows=figure_rows(compared),
        data_rows=data_rows(compared),
        setting_rows=setting_rows(compared["settings"]),
        environment_rows=setting_rows(compared["environment"]),
        figures=curves(logs, labels, compared),
        samples=[_last_sample(log) for log in logs],
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    unfinished = page.with_name(page.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(page)


# ---- tables


def figure_rows(compared: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(what, text of each run) of the figures; rows that no run has a figure for are left out."""
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("parameters", lambda run: _known(run["parameters"], human_count)),
        ("steps", lambda run: _known(run["steps"], lambda steps: f"{steps:,.0f}")),
        ("tokens", lambda run: _known(run["tokens"], human_count)),
        ("epochs", lambda run: _known(run["epochs"], lambda epochs: f"{epochs:.2f}")),
        ("time", lambda run: _known(run["seconds"], human_seconds)),
        ("tokens a second", lambda run: _known(run["tokens_per_second"], lambda rate: f"{rate:,.0f}")),
        ("loss, nats a token", lambda run: _metric(run["loss"])),
        ("perplexity, a token", lambda run: _metric(run["perplexity"])),
        ("bits per byte", lambda run: _metric(run["bits_per_byte"])),
    ]
    shown = [(name, [text(run) for run in compared["runs"]]) for name, text in rows]
    if compared["differences"]:
        changes = [_signed(change) for change in compared["differences"]]
        shown.append((f"difference to {compared['runs'][0]['label']}, paired", ["", *changes]))
        verdicts = [_verdict(change) for change in compared["differences"]]
        shown.append(("so it is", ["", *verdicts]))
    return [(name, cells) for name, cells in shown if any(cells)]


def data_rows(compared: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(what, text of each run) about the data."""
    runs = compared["runs"]
    return [
        ("corpus", [str(run["data"] or "–") for run in runs]),
        ("its hash begins with", [str(run["data_hash"] or "–")[:12] for run in runs]),
    ]


def setting_rows(settings: dict[str, list[Any]]) -> list[tuple[str, list[str]]]:
    """(name, text of each run) of settings by name."""
    return [(name, [cell(value) for value in values]) for name, values in settings.items()]


def _known(value: object, text: Callable[[float], str]) -> str:
    known = number(value)
    return "" if known is None else text(known)


def _metric(value: object) -> str:
    return "" if value is None else metric_text(value)


def _signed(change: dict[str, float]) -> str:
    low, high = figure_text(change["low"]), figure_text(change["high"])
    return f"{change['value']:+.4g} ({low} to {high})"


def _verdict(change: dict[str, float]) -> str:
    """Fewer bits are better; inside an interval that holds 0 nothing is told apart."""
    if change["low"] <= 0 <= change["high"]:
        return "not clearly different"
    return "better" if change["high"] < 0 else "worse"


# ---- curves


def curves(logs: Sequence[Log], labels: Sequence[str], compared: dict[str, Any]) -> list[Figure]:
    """The learning curves over tokens and over seconds: losses, or bits per byte where the tokens are not the same."""
    key, unit = (
        ("loss", "loss, nats a token")
        if compared["same"]["tokenizer"]
        else ("bits_per_byte", "bits per byte")
    )
    made = []
    for across in ("tokens", "seconds"):
        drawn: list[Series] = []
        ends = []
        for index, (log, run) in enumerate(zip(logs, compared["runs"])):
            found = _curve(log, key, across, labels[index], f"run{index}")
            drawn += found
            if found and found[0].points:
                ends.append(f"{run['label']} ends at {found[0].points[-1][1]:.3g}")
        words = f"{unit.capitalize()} over {across} of {len(labels)} runs. " + "; ".join(ends) + "."
        left_out = ""
        if any(len(log.steps) >= MANY_STEPS for log in logs):
            left_out = f"; without the first {START_SHARE:.0%} of the steps".replace("%", "\u00a0%")
        caption = f"{unit}, over {across}; lines: training, smoothed; points: validation{left_out}"
        made.append(figure(f"over-{across}", f"Learning, over {across}", caption, words, drawn, height=360))
    return [chart for chart in made if chart is not None]


def _curve(log: Log, key: str, across: str, label: str, color: str) -> list[Series]:
    """Training, smoothed, and validation of one run."""
    steps = log.steps[int(len(log.steps) * START_SHARE) :] if len(log.steps) >= MANY_STEPS else log.steps
    places = dict(_pairs(log.steps, "step", across))
    first = number(steps[0].get("step")) if steps else None
    checks = [
        (places[step] if across == "tokens" else number(entry.get(across)), value)
        for entry in log.validations
        if (step := number(entry.get("step"))) in places
        and (value := number(entry.get(key))) is not None
        and (first is None or step is None or step >= first)
    ]
    points = thin(_pairs(steps, across, key))
    line = smooth(points, max(1, len(points) // SMOOTHING))
    dots = [(x, y) for x, y in checks if x is not None]
    return [
        Series(f"{label}: training", "line", line, color, across),
        Series(f"{label}: validation", "dots", dots, color, across),
    ]


def _pairs(entries: Sequence[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    pairs = ((number(entry.get(x)), number(entry.get(y))) for entry in entries)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def _last_sample(log: Log) -> dict[str, Any] | None:
    """The last text that a run wrote on its way."""
    if not log.samples:
        return None
    last = log.samples[-1]
    prompt, text = printable(last.get("prompt")), printable(last.get("text"))
    return {"step": number(last.get("step")), "prompt": prompt, "text": text[:MAX_SAMPLE_CHARACTERS]}
