"""The preflight on a screen: a handful of lines on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ownlm.console import output as out
from ownlm.machine.predict import UTILISATION

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-:=+*#"
LINE_END = "⏎"

_brief = False


@contextmanager
def brief() -> Iterator[None]:
    """Inside it the preflight is what a first look needs: the text, the time, the overlap."""
    global _brief
    before, _brief = _brief, True
    try:
        yield
    finally:
        _brief = before


def show(preflight: Mapping[str, Any]) -> None:
    """Say what the run will do; overlap beyond the limits is a warning."""
    encoding = out.console().encoding
    lines = {
        "first row": fitting(preflight["sample"].replace("\n", LINE_END), encoding),
        "rows": rows(preflight["rows"]),
        "rate": rate(preflight["learning_rate"], levels(encoding)),
        "memory": memory(preflight["memory"]),
        "time": time(preflight["duration"]),
        "overlap": overlap(preflight["overlap"]),
    }
    for name, line in lines.items():
        if not _brief or name in ("first row", "time", "overlap"):
            out.say(f"{name:<12}{line}")
    if preflight["overlap"]["beyond"]:
        out.warn(
            f"the training text holds {preflight['overlap']['beyond']}: figures on the validation text are too good."
        )


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def levels(encoding: str) -> str:
    """Signs of rising height that the terminal's encoding has."""
    return BLOCKS if _encodes(BLOCKS, encoding) else ASCII


def fitting(text: str, encoding: str) -> str:
    """The text with signs that the terminal's encoding has."""
    return text if _encodes(LINE_END, encoding) else text.replace(LINE_END, "\\n").replace("…", "...")


def rows(measured: Mapping[str, Any]) -> str:
    """Shares of the rows and of their tokens."""
    return (
        f"{measured['trained_share']:.0%} of the tokens are trained; {measured['cut_share']:.0%} of the rows begin inside a "
        f"document, {measured['packed_share']:.0%} hold more than one (n = {measured['looked_at']:,})"
    )


def rate(planned: Mapping[str, Any], levels: str) -> str:
    """The learning rate over the run as one line of blocks, and its peaks."""
    if not planned["curve"]:
        return "no step is trained"
    highest = len(levels) - 1
    plot = "".join(levels[round(factor * highest)] for factor in planned["curve"])
    muon = f", {planned['muon']:g} (Muon)" if planned["muon"] else ""
    return (
        f"{plot}  peak {planned['adamw']:g} (AdamW){muon}; "
        f"{planned['warmup_steps']:,} steps up, {planned['decay_steps']:,} down"
    )


def memory(predicted: Mapping[str, int]) -> str:
    """Bytes by part against what is free."""
    parts = ", ".join(
        f"{name} {out.human_bytes(size)}"
        for name, size in predicted.items()
        if name not in ("needed", "free")
    )
    return f"{out.human_bytes(predicted['needed'])} predicted, {out.human_bytes(predicted['free'])} free: {parts}"


def time(expected: Mapping[str, Any]) -> str:
    """How long training takes, and how that is known."""
    basis = (
        f"{1000 * expected['seconds_per_step']:,.1f} ms a step, measured"
        if expected["basis"] == "measured"
        else f"predicted: {UTILISATION:.0%} of the matmul rate"
    )
    return f"about {out.human_seconds(expected['seconds'])} of training ({basis})"


def overlap(found: Mapping[str, Any]) -> str:
    """How much of the validation text was seen in training."""
    if found["known"] == "not measured":
        return "unknown: this corpus was made before it was measured. Try: ownlm prepare … --overwrite"
    if found["known"] != "measured":
        return f"none to measure: {found['known']}"
    share, whole = found["share"], found["whole_documents"]
    sampled = "" if found["sampled"] == 1 else f", a sample of {_percent(found['sampled'])} of them"
    judged = "" if found["judged"] else " (these tokens are short: such a share is no sign of copies)"
    groups = f"; groups ({found['group_by']}) are never split" if found["group_by"] else ""
    return (
        f"{_percent(share['value'])} of the validation {found['ngram']}-grams are in the training text "
        f"(95 % {_percent(share['low'])} to {_percent(share['high'])}, n = {share['n']:,}{sampled}){judged}; "
        f"documents as a whole: {whole:,}{groups}"
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.01 else f"{share * 100:.2g}%"
