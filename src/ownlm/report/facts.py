"""The facts of a run, each beside its baselines, as rows of bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ownlm.report.log import number, records

# Units whose bars are drawn on a scale with a known end: a share of 1, and per cent.
FULL_SCALE = {"share": 1.0, "%": 100.0}


@dataclass(frozen=True)
class Bar:
    """One bar: its length and the ends of its interval are shares (0 to 1) of the row's longest bar."""

    name: str
    text: str
    interval: str
    length: float
    low: float | None
    high: float | None
    is_model: bool


@dataclass(frozen=True)
class Fact:
    """A figure of the model beside the figures it should be compared with."""

    name: str
    note: str
    direction: str
    verdict: str
    bars: list[Bar]
    is_alone: bool  # one figure on no known scale: a bar would say nothing


def fact_rows(facts: dict[str, Any], run: dict[str, Any]) -> list[Fact]:
    """The rows of `facts.json`; without any, the closing figures of `run.json`."""
    rows = [_fact(entry) for entry in records(facts, "facts")]
    result = run.get("result")
    if not rows and isinstance(result, dict):
        names = {"bits_per_byte": "bits per byte", "perplexity": "perplexity", "loss": "loss (nats a token)"}
        rows = [
            _fact({"name": words, "value": result[key], "note": "validation text, whole"})
            for key, words in names.items()
            if _value(result.get(key)) is not None
        ]
    return [row for row in rows if row is not None]


def _fact(entry: dict[str, Any]) -> Fact | None:
    value = _value(entry.get("value"))
    if value is None:
        return None
    unit = str(entry.get("unit") or "")
    baselines = [b for b in records(entry, "baselines") if _value(b.get("value")) is not None]
    better = next((str(b["better"]) for b in baselines if b.get("better") in ("higher", "lower")), "")
    named = [
        ("this model", entry["value"]),
        *((str(b.get("name", "baseline")), b["value"]) for b in baselines),
    ]
    ends = [end for _, v in named for end in (_value(v), _end(v, "high")) if end is not None]
    longest = FULL_SCALE.get(unit) or max(map(abs, ends), default=0.0) or 1.0
    bars = [_bar(name, v, unit, longest, is_model=i == 0) for i, (name, v) in enumerate(named)]
    return Fact(
        name=str(entry.get("name") or "figure"),
        note=str(entry.get("note") or ""),
        direction=f"{better} is better" if better else "",
        verdict=_verdict(entry["value"], baselines, better),
        bars=bars,
        is_alone=len(bars) == 1 and unit not in FULL_SCALE,
    )


def _bar(name: str, value: object, unit: str, longest: float, *, is_model: bool) -> Bar:
    middle = _value(value) or 0.0
    low, high = _end(value, "low"), _end(value, "high")
    interval = ""
    if low is not None and high is not None:
        interval = f"95\u00a0% {figure_text(low, unit)} to {figure_text(high, unit)}"
    if isinstance(value, dict) and number(value.get("n")):
        interval += f"{', ' if interval else ''}n = {value['n']:,}"
    return Bar(
        name,
        figure_text(middle, unit),
        interval,
        min(abs(middle) / longest, 1.0),
        None if low is None else max(low / longest, 0.0),
        None if high is None else min(high / longest, 1.0),
        is_model,
    )


def _verdict(value: object, baselines: list[dict[str, Any]], better: str) -> str:
    """Who is ahead, said also when it is not the model; inside the model's interval nobody is."""
    if not better:
        return ""
    middle, low, high = _value(value) or 0.0, _end(value, "low"), _end(value, "high")
    groups: dict[str, list[str]] = {"ahead of": [], "not clearly different from": [], "behind": []}
    for baseline in baselines:
        other = _value(baseline["value"]) or 0.0
        if other == middle or (low is not None and high is not None and low <= other <= high):
            words = "not clearly different from"
        else:
            words = "ahead of" if (middle > other) == (better == "higher") else "behind"
        groups[words].append(str(baseline.get("name", "baseline")))
    return ", ".join(f"{words} {' and '.join(names)}" for words, names in groups.items() if names)


def figure_text(value: float, unit: str = "") -> str:
    """A figure with its unit; `share` is written in per cent."""
    if unit == "share":
        return f"{value:.1%}".replace("%", "\u00a0%")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text} {unit}".rstrip()


def metric_text(value: object) -> str:
    """`{"value", "low", "high", "n"}` or a number, in words."""
    middle = _value(value)
    if middle is None:
        return "–"
    low, high = _end(value, "low"), _end(value, "high")
    text = figure_text(middle)
    if low is not None and high is not None:
        text += f" ({figure_text(low)} to {figure_text(high)})"
    return text


def _value(value: object) -> float | None:
    return number(value.get("value")) if isinstance(value, dict) else number(value)


def _end(value: object, key: str) -> float | None:
    return number(value.get(key)) if isinstance(value, dict) else None
