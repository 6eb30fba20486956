"""A data set for a task as a folder: train.jsonl, validation.jsonl, README.md."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ownlm.console.errors import UsageError
from ownlm.tasks.examples import code, dates
from ownlm.tasks.examples.code import Grouped

MOST = 6000  # rows of a set: enough for a small model, minutes of training
ANSWERS = ("completion", "label", "tags", "answers", "zh", "summary")
HELD_OUT = 0.1  # share of the rows, at least

PACKAGES = "whole packages of the library are either in train.jsonl or in validation.jsonl"
MODULES = "whole modules of the library are either in train.jsonl or in validation.jsonl"
VALUES = "no English and no Chinese text is in both files"


@dataclass(frozen=True)
class Example:
    """A data set that can be made.

    Attributes:
        task: that of a shape (shapes.py), or another name of it.
        rows: makes them, each with the group that is not divided.
        what: one sentence for the README.
        split: what is on one side only.
    """

    task: str
    rows: Callable[[], Iterable[Grouped]]
    what: str
    split: str = PACKAGES


def _translations() -> Iterator[Grouped]:
    seen: set[str] = set()
    for row in dates.pairs():
        if row["en"] not in seen and row["zh"] not in seen:
            seen |= {row["en"], row["zh"]}
            yield Grouped(row["en"], row)


_LABELLED = (
    "The source of a function and the package it comes from. The label is a package, not a feeling: no machine "
    "carries judged film reviews."
)
EXAMPLES = {
    "chat": Example(
        "chat", code.chats, "Conversations about functions, two questions each, English and Chinese."
    ),
    "completion": Example(
        "completion", code.completions, "Header and docstring of a function, and its body."
    ),
    "classification": Example("classification", code.labelled, _LABELLED, MODULES),
    "sentiment": Example("sentiment", code.labelled, _LABELLED, MODULES),
    "ner": Example(
        "ner", code.tagged, "The words of functions; names, arguments, defaults and exceptions are tagged."
    ),
    "qa": Example(
        "qa", code.questions, "Functions, and what the default of an argument is: a span of the function."
    ),
    "translation": Example(
        "translation",
        _translations,
        "Dates, times and numbers in English and Chinese, made by rules.",
        VALUES,
    ),
    "summarization": Example(
        "summarization", code.summaries, "Functions and the first line of their docstrings."
    ),
}


def write_example(task: str, folder: Path) -> dict[str, Any]:
    """Make the data set of a task; the same files for the same version of Python.

    Args:
        task: a key of `EXAMPLES`. folder: does not exist yet, or is empty.

    Returns:
        {"folder", "task", "train", "validation"}: numbers of rows.

    Raises:
        UsageError: the folder has something in it, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "is there already and not empty." if folder.is_dir() else "is a file.",
            where=folder,
            do=f"ownlm data example {task} -o {folder}-2",
        )
    example = EXAMPLES[task]
    train, validation = split(_chosen(example.rows()))
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("validation", validation)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="")
    text = _readme(example, train, validation)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="")
    return {"folder": str(folder), "task": task, "train": len(train), "validation": len(validation)}


def _chosen(rows: Iterable[Grouped]) -> list[Grouped]:
    """At most `MOST` rows: those with the smallest hashes, in the order in which they were made; no question twice."""
    first: dict[str, Grouped] = {}
    for grouped in islice(rows, 4 * MOST):
        first.setdefault(_asked(grouped.row), grouped)
    found = list(first.values())
    if len(found) <= MOST:
        return found
    ranked = sorted(range(len(found)), key=lambda i: _hash(json.dumps(found[i].row, sort_keys=True)))
    return [found[i] for i in sorted(ranked[:MOST])]


def split(rows: list[Grouped]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(training, validation) rows: groups in the order of their hashes are held out until it is a tenth.

    A group that has a tenth of the rows by itself is not held out: it would be all that is looked at.
    """
    sizes: dict[str, int] = {}
    for group, _ in rows:
        sizes[group] = sizes.get(group, 0) + 1
    held_out: set[str] = set()
    number = 0
    for group in sorted(sizes, key=_hash):
        if number >= HELD_OUT * len(rows):
            break
        if sizes[group] <= HELD_OUT * len(rows) / 2 or len(sizes) < 20:
            held_out.add(group)
            number += sizes[group]
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group, row in rows:
        sides[group in held_out].append(row)
    return sides


def _asked(row: dict[str, Any]) -> str:
    """What a row gives to the model; the first turn of a conversation."""
    if "messages" in row:
        return str(row["messages"][0]["content"])
    return json.dumps([cell for name, cell in row.items() if name not in ANSWERS])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _readme(example: Example, train: list[dict[str, Any]], validation: list[dict[str, Any]]) -> str:
    from_library = example.split != VALUES
    source = (
        f"Source: the standard library of Python {platform.python_version()} on this machine (licence of the Python "
        "Software Foundation); another version gives other rows."
        if from_library
        else "Source: rules in ownlm; the same rows on every machine."
    )
    sample = json.dumps(validation[0], ensure_ascii=False, indent=2)
    return f"""\
# Example data: {example.task}

{example.what}

| file | rows |
|---|---|
| train.jsonl | {len(train):,} |
| validation.jsonl | {len(validation):,} |

Split: {example.split}.
{source}
Written by `ownlm data example {example.task}`: no network, no random numbers, the same bytes when it is written again.

The first row of validation.jsonl:

````json
{sample}
````

It is for trying things out: figures on it say nothing about other texts.
"""
