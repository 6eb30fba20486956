"""Rows as a model reads them, what is trained in colour, or between marks where there is no colour."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import groupby, islice
from typing import Any

from ownlm.console import output as out
from ownlm.tasks.dataset import DataSet
from ownlm.tasks.items import Item, Labelled, Question, Tagged
from ownlm.tasks.measure import Reader, head_ids, rendered
from ownlm.tasks.problems import BadRow

OPEN, CLOSE = "⟦", "⟧"
GREEN, PLAIN = "\x1b[32m", "\x1b[0m"


def shown_rows(data: DataSet, reader: Reader, number: int) -> list[dict[str, Any]]:
    """The first rows that can be used: where, text, ids, and which of them are trained.

    For a head, `text` and `ids` are what it reads and `target` is what it learns; no token is trained as text.
    """
    return list(islice(_rows(data, reader), number))


def _rows(data: DataSet, reader: Reader) -> Any:
    for item in data.items():
        try:
            row = rendered(item, data.task, reader)
        except BadRow as bad:
            data.problems.bad(item.where, bad)
            continue
        if row is None:
            yield _head(item, reader)
        else:
            spans = [("".join(row.pieces[i] for i in run), on) for run, on in _runs(row.trained)]
            yield {
                "where": item.where,
                "ids": row.ids,
                "trained": row.trained,
                "text": row.text,
                "spans": spans,
            }


def _head(item: Item, reader: Reader) -> dict[str, Any]:
    ids = head_ids(item, reader.tokenizer)
    found: dict[str, Any] = {"where": item.where, "ids": ids, "trained": [False] * len(ids)}
    match item:
        case Labelled():
            return found | {"text": item.text, "spans": [(item.text, False)], "target": item.label}
        case Tagged():
            words = [
                (f"{token}/{tag}" if tag != "O" else token, tag != "O")
                for token, tag in zip(item.tokens, item.tags)
            ]
            spans = [part for word in words for part in (word, (" ", False))]
            return found | {"text": " ".join(item.tokens), "spans": spans, "target": list(item.tags)}
        case Question():
            return found | _question(item)
        case _:
            raise TypeError(type(item).__name__)


def _question(item: Question) -> dict[str, Any]:
    answer = next((a for a in item.answers if a.start is not None), None)
    spans = [(item.question + "\n", False)]
    if answer is None or answer.start is None:
        spans.append((item.context, False))
    else:
        end = answer.start + len(answer.text)
        spans += [(item.context[: answer.start], False), (answer.text, True), (item.context[end:], False)]
    texts = [answer.text for answer in item.answers]
    return {"text": f"{item.question}\n{item.context}", "spans": spans, "target": texts or "no answer"}


def _runs(trained: Sequence[bool]) -> list[tuple[list[int], bool]]:
    return [(list(run), on) for on, run in groupby(range(len(trained)), key=lambda index: trained[index])]


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Each row on stdout: place and numbers, text, ids; control characters of the data are spelled out."""
    colour = on_terminal()
    for row in rows:
        number = sum(row["trained"])
        counted = f"{number:,} trained" if "target" not in row else f"a head learns: {_target(row['target'])}"
        out.result(f"── {out.printable(row['where'])}  {len(row['ids']):,} tokens, {out.printable(counted)}")
        out.result(_marked(((text, on) for text, on in row["spans"]), colour))
        ids = ((" ".join(str(row["ids"][i]) for i in run), on) for run, on in _runs(row["trained"]))
        out.result("ids: " + _marked(ids, colour, " ") + "\n")


def _target(target: Any) -> str:
    return target if isinstance(target, str) else ", ".join(dict.fromkeys(target))


def _marked(spans: Any, colour: bool, between: str = "") -> str:
    left, right = (GREEN, PLAIN) if colour else (OPEN, CLOSE)
    parts = [
        f"{left}{out.printable(text)}{right}" if on else out.printable(text) for text, on in spans if text
    ]
    return between.join(parts)


def on_terminal() -> bool:
    """Whether stdout shows colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def legend() -> str:
    """What colour or marks mean."""
    return (
        "Trained is what is green."
        if on_terminal()
        else f"Trained is what stands between {OPEN} and {CLOSE}."
    )
