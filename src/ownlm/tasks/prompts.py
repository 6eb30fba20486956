"""The instruction that turns a pair into a conversation, for models that translate or summarize in words."""

from __future__ import annotations

from dataclasses import replace

from ownlm.tasks.items import Chat, Item, Pair
from ownlm.tasks.shapes import language_name

BETWEEN = "\n"


def as_chat(item: Item, task: str) -> Chat | None:
    """The conversation that an item of a task stands for; None where the task is not one of words."""
    if isinstance(item, Chat):
        return item
    if not isinstance(item, Pair) or task not in ("translation", "summarization"):
        return None
    return Chat(
        item.where,
        (
            {"role": "user", "content": f"{instruction(task, item.languages)}\n\n{item.source}"},
            {"role": "assistant", "content": item.target},
        ),
    )


def as_plain(pair: Pair, task: str) -> Pair:
    """A pair as it is learnt without a chat template: a line break stands between the two texts of a translation or
    summary, a completion goes on where its prompt ends."""
    return pair if task == "completion" else replace(pair, source=f"{pair.source}{BETWEEN}")


def instruction(task: str, languages: tuple[str, str] = ("", "")) -> str:
    """What is asked for: "Translate from English to German:"; without languages "Translate:"."""
    if task == "summarization":
        return "Summarize:"
    source, target = map(language_name, languages)
    if source and target:
        return f"Translate from {source} to {target}:"
    return f"Translate to {target}:" if target else "Translate:"
