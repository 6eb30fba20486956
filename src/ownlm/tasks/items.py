"""What a row is once its shape is known: one type a task, each with the place it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Messages = tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation.

    Attributes:
        where: `file:line`.
        messages: {"role", "content"}, with "tool_calls", "tool_call_id" and "name" where the row has them.
        tools: descriptions of the tools, for the chat template.
    """

    where: str
    messages: Messages
    tools: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and its label."""

    where: str
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """Words and a tag for each."""

    where: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and the character of the context it begins at; None when it is no part of the context."""

    text: str
    start: int | None


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a context; without answers it cannot be answered from it."""

    where: str
    context: str
    question: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and what shall be written for it.

    Attributes:
        where: `file:line`.
        source: prompt, sentence to translate, or document.
        target: completion, translation or summary.
        others: further targets that are as good, for measuring.
        languages: names of the two columns of a translation, ("", "") otherwise.
    """

    where: str
    source: str
    target: str
    others: tuple[str, ...] = ()
    languages: tuple[str, str] = ("", "")


Item = Chat | Labelled | Tagged | Question | Pair


def input_text(item: Item) -> str:
    """What a model is given, as plain text."""
    match item:
        case Chat():
            asked = (m for m in item.messages if m["role"] != "assistant")
            return "\n".join(_content(message) for message in asked)
        case Labelled():
            return item.text
        case Tagged():
            return " ".join(item.tokens)
        case Question():
            return f"{item.question}\n{item.context}"
        case Pair():
            return item.source


def output_text(item: Item) -> str:
    """What a model shall give, as plain text."""
    match item:
        case Chat():
            return "\n".join(_content(m) for m in item.messages if m["role"] == "assistant")
        case Labelled():
            return item.label
        case Tagged():
            return " ".join(item.tags)
        case Question():
            return item.answers[0].text if item.answers else ""
        case Pair():
            return item.target


def _content(message: dict[str, Any]) -> str:
    if message.get("tool_calls"):
        return f"{message['content']}{message['tool_calls']}"
    return str(message["content"])
