"""The report of `ownlm data check` on stdout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ownlm.console import output as out
from ownlm.tasks.check import MANY_LABELS, nearly_equal
from ownlm.tasks.dataset import DataSet
from ownlm.tasks.lengths import bars

FIRST = 10  # exceptions that are printed; --json has the first thousand of each kind
LABELS = 20  # labels that are printed


def print_report(content: dict[str, Any], data: DataSet) -> None:
    """Everything on stdout, exceptions last."""
    out.result_table("", ["", ""], list(_facts(content)))
    if len(content["files"]) > 1:
        rows = [
            (f["file"], f"{f['rows']:,}", f"{f['usable']:,}", "held out" if f["held_out"] else "training")
            for f in content["files"]
        ]
        out.result("")
        out.result_table("", ["file", "rows", "usable", "by its name"], rows, numeric=(1, 2))
    for title, lengths in _lengths(content):
        out.result("")
        out.result_table("", [title, "rows", ""], bars(lengths["histogram"]), numeric=(0, 1))
    _print_labels(content["labels"])
    _print_exceptions(content, data)


def _facts(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "task", content["task"]
    yield "shape", f"{content['shape']}   (columns read: {', '.join(content['columns'])})"
    left_out = content["rows"] - content["usable"]
    yield "rows", f"{content['rows']:,}, of which {content['usable']:,} can be trained on, {left_out:,} not"
    if content["unused_columns"]:
        yield "columns not read", ", ".join(content["unused_columns"])
    for group in content["not_read"]:
        yield "files not read", f"{group['files']:,}: {group['reason']}"
    for name, lengths in content["characters"].items():
        if lengths:
            yield f"{name}, characters", _quantiles(lengths)
    yield from _token_facts(content["tokens"])
    for name, counted in content["languages"].items():
        if counted:
            shown = ", ".join(
                f"{LANGUAGE.get(language, language)} {number:,}" for language, number in counted.items()
            )
            yield f"language of {name}s", shown
    yield from _copies(content["copies"])


LANGUAGE = {"en": "English", "zh": "Chinese", "spaced": "with spaces between words", "other": "other"}


def _token_facts(tokens: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if tokens is None or not tokens["length"]:
        return
    yield "tokens a row", _quantiles(tokens["length"])
    total = tokens["length"]["total"]
    if tokens["trained"] is not None:
        yield "trained tokens", f"{tokens['trained']:,} of {total:,} ({tokens['trained'] / total:.1%})"
    template = tokens["chat_template"]
    if template is not None:
        yield "chat template", f"{template['from']}, sha256 {template['sha256'][:12]}…"
    if tokens["longer_than_context"]:
        share = f"{tokens['longer_than_context']:,} rows are longer than the {tokens['context']:,} tokens of the model"
        yield "too long", share
    if tokens["endless_answers"]:
        yield (
            "no end",
            f"{tokens['endless_answers']:,} answers without a token that ends them: it would not learn to stop",
        )
    if tokens["straddling"]:
        yield (
            "seams",
            f"{tokens['straddling']:,} tokens hold the end of a prompt and the beginning of its answer",
        )


def _quantiles(lengths: dict[str, Any]) -> str:
    return f"median {lengths['median']:,}, 95 % below {lengths['p95']:,}, longest {lengths['longest']:,}"


def _copies(copies: dict[str, Any]) -> Iterator[tuple[str, str]]:
    names = {
        "same_row": ("copies", "rows are there before"),
        "other_answer": ("other answers", "rows ask what another row asks, with another answer"),
        "in_both_splits": ("on both sides", "held-out rows ask what a training row asks"),
    }
    for kind, (name, words) in names.items():
        if copies[kind]:
            yield name, f"{copies[kind]:,} {words}, the first: {copies['first'][kind]}"


def _lengths(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if content["tokens"] is not None and content["tokens"]["length"]:
        yield "tokens a row", content["tokens"]["length"]
    elif content["characters"]["input"]:
        yield "characters of input", content["characters"]["input"]


def _print_labels(labels: dict[str, int] | None) -> None:
    if not labels:
        return
    total = sum(labels.values())
    rows = [
        (label, f"{number:,}", f"{number / total:.1%}") for label, number in list(labels.items())[:LABELS]
    ]
    if len(labels) > LABELS:
        rows.append((f"and {len(labels) - LABELS:,} more", "", ""))
    out.result("")
    out.result_table("", ["label", "rows", "share"], rows, numeric=(1, 2))
    for group in nearly_equal(labels):
        shown = " and ".join(f'"{label}"' for label in group)
        out.warn(
            f"labels that differ by case, spaces or signs alone: {shown}. If they mean the same, write them alike."
        )
    if len(labels) == 1:
        out.warn("there is one label: nothing can be told apart.")
    if len(labels) > MANY_LABELS:
        out.warn(f"{len(labels):,} labels: is this column the label?")


def _print_exceptions(content: dict[str, Any], data: DataSet) -> None:
    for title, counted in (("not used", content["left_out"]), ("used, but", content["told"])):
        if counted:
            out.result("")
            rows = [(kind, f"{number:,}") for kind, number in counted.items()]
            out.result_table("", [title, "rows"], rows, numeric=(1,))
    shown = data.problems.first(FIRST)
    if shown:
        out.result("")
    for problem in shown:
        out.result(out.printable(str(problem)))
    more = sum(content["left_out"].values()) + sum(content["told"].values()) - len(shown)
    if more > 0:
        out.result(f"and {more:,} more: --json")
