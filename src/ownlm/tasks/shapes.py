"""The shapes that rows of data come in: recognised by their columns, confirmed on every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ownlm.console.errors import UsageError, did_you_mean
from ownlm.tasks import convert
from ownlm.tasks.answers import to_question
from ownlm.tasks.cells import Tell
from ownlm.tasks.items import Item
from ownlm.tasks.no_shape import no_shape

SAME_ROWS = {"sentiment": "classification"}  # another name, the same rows

LOOKED_AT = 200  # rows whose columns choose the shape


@dataclass(frozen=True, eq=False)
class Shape:
    """A kind of row.

    Attributes:
        name: what reports call it.
        task: what it trains.
        columns: role → names that the column may have; all of them are needed.
        optional: columns that are used when they are there.
        convert: row (by roles), where, tell → an item of the task.
        looks_like: what a row is, in words.
    """

    name: str
    task: str
    columns: Mapping[str, tuple[str, ...]]
    optional: tuple[str, ...]
    convert: Callable[[dict[str, Any], str, Tell], Item]
    looks_like: str
    languages: tuple[str, str] = ("", "")
    nested: bool = False

    def found(self, row: Mapping[str, Any]) -> dict[str, str] | None:
        """Role → column for a row that has all that is needed, else None."""
        if self.nested:
            cell = row.get("translation")
            fits = isinstance(cell, dict) and set(self.languages) <= set(cell)
            return {"source": "translation", "target": "translation"} if fits else None
        chosen = {}
        for role, names in self.columns.items():
            column = next((name for name in names if name in row), None)
            if column is None:
                return None
            chosen[role] = column
        return chosen

    def item(self, row: dict[str, Any], where: str, tell: Tell) -> Item:
        """The row as an item of the task.

        Raises:
            BadRow: it is of another shape, or something in it is wrong.
        """
        if self.nested:
            cell = row.get("translation")
            values = dict(cell) if isinstance(cell, dict) else {}
            return self.convert(values | {"languages": self.languages}, where, tell)
        values = dict(row)
        for role, names in self.columns.items():
            column = next((name for name in names if name in row), None)
            if column is not None and self.languages == ("", ""):
                values[role] = values.pop(column)
        if self.languages != ("", ""):
            values["languages"] = self.languages
        return self.convert(values, where, tell)

    @property
    def used(self) -> set[str]:
        """Names of columns that are read."""
        return {name for names in self.columns.values() for name in names} | set(self.optional)


def _same(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


SHAPES = (
    Shape("messages", "chat", _same("messages"), ("system", "tools"), convert.to_messages,
          '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'),
    Shape("sharegpt", "chat", _same("conversations"), ("system", "tools"), convert.to_sharegpt,
          '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}'),
    Shape("alpaca", "chat", _same("instruction", "output"), ("input", "system", "history"), convert.to_alpaca,
          '{"instruction": "…", "input": "…", "output": "…"}'),
    Shape("prompt/completion", "completion", _same("prompt", "completion"), (), convert.to_completion,
          '{"prompt": "…", "completion": "…"}'),
    Shape("context/question/answers", "qa", _same("context", "question") | {"answers": ("answers", "answer")}, (),
          to_question, '{"context": "…", "question": "…", "answers": {"text": ["…"], "answer_start": [0]}}'),
    Shape("tokens/tags", "ner", {"tokens": ("tokens", "words"), "tags": ("tags", "ner_tags", "labels")}, (),
          convert.to_tagged, '{"tokens": ["…", "…"], "tags": ["O", "B-PER"]}'),
    Shape("text/label", "classification", {"text": ("text", "sentence"), "label": ("label",)}, (),
          convert.to_labelled, '{"text": "…", "label": "…"}'),
    Shape("document/summary", "summarization",
          {"document": ("document", "article"), "summary": ("summary", "highlights")}, (), convert.to_summary,
          '{"document": "…", "summary": "…"}'),
    Shape("source/target", "translation", _same("source", "target"), (), convert.to_translation,
          '{"source": "…", "target": "…"}'),
    Shape("question/answer", "completion", {"prompt": ("question", "query"), "completion": ("answer", "response")}, (),
          convert.to_completion, '{"question": "…", "answer": "…"}'),
)  # fmt: skip

# With the task given, or with lists of sentences in them, columns that could mean something else too.
_OF_TASK = {shape.task: shape for shape in SHAPES}
WITH_TASK = (
    replace(
        _OF_TASK["summarization"],
        name="source/target",
        columns={"document": ("source",), "summary": ("target",)},
    ),
)

ROLES = tuple(dict.fromkeys(name for shape in SHAPES for name in (*shape.columns, *shape.optional)))

# Two-letter names of columns that are languages (ISO 639-1), and what they are called in English.
LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "ga": "Irish", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian",
    "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh",
    "km": "Khmer", "ko": "Korean", "la": "Latin", "lt": "Lithuanian", "lv": "Latvian", "ms": "Malay", "my": "Burmese",
    "nb": "Norwegian", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "ps": "Pashto",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def is_language(name: str) -> bool:
    """Whether a column is named after a language: `de`, `zh-CN`, `pt_BR`; `id` and `no` are numbers more often."""
    return (
        name not in ("id", "no")
        and name.replace("_", "-").split("-")[0].lower() in LANGUAGES
        and len(name) <= 7
    )


def language_name(code: str) -> str:
    """ "de" → "German"; what is no known code stays as it is."""
    return LANGUAGES.get(code.replace("_", "-").split("-")[0].lower(), code)


def recognise(
    rows: Sequence[Mapping[str, Any]], task: str | None, mapped: Iterable[str], where: str
) -> Shape:
    """The shape that most of the first rows have; where several fit, the first of `SHAPES`.

    Args:
        rows: columns → cells, renamed as `--map` says.
        task: only shapes of this task, or any.
        mapped: roles that `--map` gave; the shape must use them all.
        where: for the message.

    Raises:
        Refused: no shape fits.
    """
    looked_at = rows[:LOOKED_AT]
    counted: Counter[Shape] = Counter()
    wanted = SAME_ROWS.get(task or "", task)
    for shape in _candidates(looked_at, wanted):
        if wanted in (None, shape.task) and set(mapped) <= {*shape.columns, *shape.optional}:
            counted[shape] = sum(shape.found(row) is not None for row in looked_at)
    best, number = counted.most_common(1)[0] if counted else (None, 0)
    if best is None or number == 0:
        raise no_shape(looked_at, task, [shape for shape in SHAPES if wanted in (None, shape.task)], where)
    return best


def _candidates(rows: Sequence[Mapping[str, Any]], task: str | None) -> list[Shape]:
    sentences = any(isinstance(row.get("source"), list) for row in rows)
    found = [*(WITH_TASK if task is not None or sentences else ()), *SHAPES]
    pairs: dict[tuple[str, str], bool] = {}
    for row in rows:
        cell = row.get("translation")
        nested = isinstance(cell, dict)
        names = [name for name in (cell if isinstance(cell, dict) else row) if is_language(name)]
        if len(names) == 2:
            pairs[names[0], names[1]] = nested
    base = _OF_TASK["translation"]
    for (source, target), nested in pairs.items():
        columns = {} if nested else {"source": (source,), "target": (target,)}
        name = f"two languages ({source} → {target})"
        optional = ("translation",) if nested else ()
        looks_like = f'{{"{source}": "…", "{target}": "…"}}'
        found.append(replace(base, name=name, columns=columns, optional=optional, looks_like=looks_like,
                             languages=(source, target), nested=nested))  # fmt: skip
    return found


def parse_map(assignments: Iterable[str]) -> dict[str, str]:
    """`["abst=document"]` → `{"abst": "document"}`.

    Raises:
        UsageError: not column=role, an unknown role, a column or role given twice.
    """
    found: dict[str, str] = {}
    for assignment in assignments:
        column, equals, role = (part.strip() for part in assignment.rpartition("="))
        if not equals or not column or not role:
            raise UsageError(f'"{assignment}" is not column=role.', where="--map", do="--map abst=document")
        if role not in ROLES:
            raise UsageError(
                f'"{role}" is no role.{did_you_mean(role, ROLES)}',
                where="--map",
                why=f"Roles are {', '.join(ROLES)}.",
            )
        if column in found or role in found.values():
            raise UsageError(f'"{column if column in found else role}" is given twice.', where="--map")
        found[column] = role
    return found
