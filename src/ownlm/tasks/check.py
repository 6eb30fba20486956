"""The report on a data set: shape, exceptions, lengths, labels, languages, copies, and whether it can train anything."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ownlm.corpus.languages import language_of
from ownlm.tasks.dataset import DataSet
from ownlm.tasks.items import Item, Labelled, Question, Tagged, input_text, output_text
from ownlm.tasks.lengths import summary
from ownlm.tasks.measure import measured

if TYPE_CHECKING:
    from ownlm.tasks.measure import Reader

MANY_LABELS = 1000  # more are shown as a number: the column is no label then


def report(data: DataSet, reader: Reader | None = None) -> dict[str, Any]:
    """All that `ownlm data check` says, as JSON has it.

    Args:
        data: the rows. reader: a model's tokenizer and template, when tokens are to be counted too. Rows that its
            template refuses are added to the problems and are not usable.
    """
    tokens, refused = measured(data, reader) if reader is not None else (None, set())
    usable = [item for item in data.items() if id(item) not in refused]
    return {
        "task": data.task,
        "shape": data.shape.name,
        "columns": [name for name in data.columns if name in data.shape.used],
        "rows": data.rows,
        "usable": len(usable),
        "files": [_file(part, refused) for part in data.parts],
        "left_out": dict(data.problems.left_out.most_common()),
        "told": dict(data.problems.told.most_common()),
        "unused_columns": data.unused,
        "not_read": [{"reason": group.reason, "files": group.files} for group in data.not_read],
        "characters": _characters(usable),
        "tokens": tokens,
        "labels": _labels(usable),
        "languages": _languages(usable),
        "copies": _copies(data, refused),
        "exceptions": [problem.as_dict() for problem in data.problems.kept if problem.left_out],
        "notes": [problem.as_dict() for problem in data.problems.kept if not problem.left_out],
    }


def _worded(items: list[Item]) -> bool:
    """Whether answers are texts, not labels or tags."""
    return not any(isinstance(item, Labelled | Tagged) for item in items[:1])


def _characters(items: list[Item]) -> dict[str, Any]:
    found = {"input": summary([len(input_text(item)) for item in items])}
    if _worded(items):
        found["answer"] = summary([len(output_text(item)) for item in items])
    return found


def _file(part: Any, refused: set[int]) -> dict[str, Any]:
    usable = sum(id(item) not in refused for item in part.items)
    return {"file": part.name, "rows": part.rows, "usable": usable, "held_out": part.held_out}


def _labels(items: list[Item]) -> dict[str, int] | None:
    """Label (or tag) → how often, most frequent first; None where the task has none."""
    counted: Counter[str] = Counter()
    for item in items:
        if isinstance(item, Labelled):
            counted[item.label] += 1
        elif isinstance(item, Tagged):
            counted.update(item.tags)
    return dict(sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))) if counted else None


def nearly_equal(labels: dict[str, int]) -> list[list[str]]:
    """Groups of labels that differ by case, spaces or punctuation alone: probably one label each."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault("".join(c for c in label.casefold() if c.isalnum()) or label, []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _languages(items: list[Item]) -> dict[str, dict[str, int]]:
    """What inputs and answers are written in, by `corpus.languages` ("spaced": another language with spaces)."""
    inputs = Counter(language_of(input_text(item)[:2000]) for item in items)
    answers = Counter(language_of(output_text(item)[:2000]) for item in items)
    return {"input": dict(inputs.most_common())} | (
        {"answer": dict(answers.most_common())} if _worded(items) else {}
    )


def _copies(data: DataSet, refused: set[int]) -> dict[str, Any]:
    """Rows that are there again: as a whole, with another answer, and on both sides of the split.

    `first` names one row of each kind with the row that it repeats.
    """
    seen: dict[bytes, str] = {}
    inputs: dict[bytes, tuple[bytes, str]] = {}
    trained: dict[bytes, str] = {}
    found = {"same_row": 0, "other_answer": 0, "in_both_splits": 0}
    first: dict[str, str] = {}

    def count(kind: str, item: Item, other: str) -> None:
        found[kind] += 1
        first.setdefault(kind, f"{item.where} and {other}")

    for held_out, item in _both(data, refused):
        asked, answered = _hash(input_text(item)), _hash(_answers(item))
        if asked + answered in seen:
            count("same_row", item, seen[asked + answered])
        elif asked in inputs and inputs[asked][0] != answered:
            count("other_answer", item, inputs[asked][1])
        seen.setdefault(asked + answered, item.where)
        inputs.setdefault(asked, (answered, item.where))
        if not held_out:
            trained.setdefault(asked, item.where)
        elif asked in trained:
            count("in_both_splits", item, trained[asked])
    return found | {"first": first}


def _both(data: DataSet, refused: set[int]) -> Iterator[tuple[bool, Item]]:
    """(held out, item), what is trained first."""
    for part in sorted(data.parts, key=lambda part: part.held_out):
        yield from ((part.held_out, item) for item in part.items if id(item) not in refused)


def _answers(item: Item) -> str:
    return repr(item.answers) if isinstance(item, Question) else output_text(item)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
