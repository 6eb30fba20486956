"""What a model says to the rows of a task: the predictions that `evaluation.tasks.measure` takes.

Every kind of model goes through its own methods (`classify`, `tag`, `read`, `translate`, …), so a figure is about what
a user gets. Answers are greedy unless options say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ownlm.console import output as out
from ownlm.tasks.items import Chat, Item, Labelled, Pair, Question, Tagged

if TYPE_CHECKING:
    from ownlm.evaluation.tasks.predictions import Predictions
    from ownlm.loaded import LoadedModel

WRITTEN = ("translation", "summarization", "completion", "chat")


def predictions(
    loaded: LoadedModel,
    task: str,
    items: Sequence[Item],
    *,
    labels: Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    truncate: bool = False,
    seed: int = 0,
) -> Predictions:
    """One prediction an item, in order; what it holds is in `evaluation.tasks.predictions`.

    Args:
        loaded: from `ownlm.load`.
        task: a name of `evaluation.tasks.predictions.TASKS`.
        items: rows of that task.
        labels: to choose from, for a model without a head; those of the rows when not given.
        max_new_tokens: of an answer at most; the method's own number when not given.
        truncate: cut texts that do not fit the window, which is said; else they are refused.

    Raises:
        Refused: the model cannot do this task, or a row does not fit.
    """
    if not items:
        return []
    options: dict[str, Any] = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    if task in ("classification", "sentiment"):
        return _labels(loaded, cast(Sequence[Labelled], items), labels)
    if task == "ner":
        return _tags(loaded, cast(Sequence[Tagged], items))
    if task == "qa":
        return _answers(loaded, cast(Sequence[Question], items))
    if task not in WRITTEN:
        raise ValueError(f"no task {task!r}")
    return _texts(loaded, task, cast("Sequence[Chat | Pair]", items), truncate=truncate, seed=seed, **options)


def _labels(loaded: LoadedModel, items: Sequence[Labelled], labels: Sequence[str] | None) -> Predictions:
    own = getattr(loaded, "labels", None) or loaded.run.get("labels")
    if not own and labels is None:
        labels = sorted({item.label for item in items})
        out.say(f"The labels to choose from are those of the rows: {', '.join(labels)[:200]}.")
    found = loaded.classify([item.text for item in items], None if own else labels, top_k=None)
    return [
        {"label": best[0]["label"], "scores": {one["label"]: one["score"] for one in best}} for best in found
    ]


def _tags(loaded: LoadedModel, items: Sequence[Tagged]) -> Predictions:
    tag_words: Any = getattr(loaded, "tag_words", None)
    if tag_words is None:
        loaded.tag([])  # refused with what helps
    return [{"tags": tags} for tags in tag_words([item.tokens for item in items])]


def _answers(loaded: LoadedModel, items: Sequence[Question]) -> Predictions:
    found = loaded.read_all([(item.question, item.context) for item in items])
    return [answers[0] for answers in found]


def _texts(
    loaded: LoadedModel, task: str, items: Sequence[Chat | Pair], *, truncate: bool, seed: int, **options: Any
) -> Predictions:
    return loaded.answer_items(task, items, truncate=truncate, seed=seed, **options)
