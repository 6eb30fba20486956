"""Conversations with a model: messages through its chat template, the same ids as in training, cut to the window.

A template is that of the model's folder or one that was given; it is never guessed.
"""

from __future__ import annotations

import shlex
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.continuation import Piece, Prompt
from ownlm.corpus.special_tokens import read_config
from ownlm.tasks.answer_end import answer_ends
from ownlm.tasks.problems import BadRow
from ownlm.tasks.sandbox import GENERATION_MARK
from ownlm.tasks.templates import FILE, ChatTemplate, find_template, folder_template

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.loaded import LoadedModel

Messages = Sequence[Mapping[str, Any]]

ANSWER_TOKENS = (
    512  # of an answer at most, when nothing else is asked for: some pages; a model that does not stop ends
)
ROOM = 4  # a quarter of the window at most is kept for the answer, before messages are left out for it

# What a model that does not chat is asked with instead.
INSTEAD = {
    "continues text": 'generate {} "The beginning of a text"',
    "translation": 'translate {} "A sentence" --to de',
    "summarization": "summarize {} FILE",
    "classification": 'classify {} "A text"',
    "sentiment": 'classify {} "A text"',
    "qa": 'answer {} "A question" --context FILE',
    "completion": 'generate {} "A prompt"',
    "fills masks": 'generate {} "A text with a mask"',
}


class Fitted(NamedTuple):
    """What the model reads of a conversation, and how many of its oldest messages did not fit."""

    prompt: Prompt
    left_out: int


class Conversation:
    """How one model converses.

    Args:
        loaded: a causal model.
        chat_template: a built-in one by its name, or a file; None: that of the model's folder.

    Attributes:
        window: tokens of conversation and answer together. template: in use. end_ids: tokens that end an answer in it, beside the model's own.

    Raises:
        Refused: the model has no template and none was given, or it does not continue what it reads.
    """

    def __init__(self, loaded: LoadedModel, chat_template: str | None = None) -> None:
        # Masked models and task heads have no engine: they refuse here with what they do.
        self.loaded, self.window = loaded, loaded.engine.max_context
        own = folder_template(loaded.tokenizer, loaded.path) if chat_template is None else None
        if chat_template is None and own is None and "chat" not in loaded.taught:
            raise not_taught(loaded.path, loaded.taught)
        if loaded.answers_alone:
            raise Refused(
                "an encoder-decoder model: it answers one text with another and keeps no conversation.",
                where=loaded.path,
                do=f'ownlm generate {shlex.quote(str(loaded.path))} "A text"',
            )
        self.template = find_template(loaded.tokenizer, loaded.path, chat_template)
        self.end_ids = answer_ends(self.template, loaded.tokenizer)

    def stream(
        self, messages: Messages, tools: Sequence[Any] = (), **sampling: Any
    ) -> tuple[Iterator[Piece], int]:
        """The answer to the last message as it is written, and how many messages did not fit before it.

        Args:
            messages: from `checked`.
            tools: descriptions of tools, for the template.
            sampling: as `LoadedModel.stream` takes it; one answer, of `ANSWER_TOKENS` unless said otherwise.

        Raises:
            UsageError: an option that a conversation does not have. Refused: see `fitted`.
        """
        for name, value in (("max_length", None), ("num_return_sequences", 1)):
            if sampling.get(name, value) != value:
                raise UsageError("a conversation has no such option.", where=name, do="max_new_tokens")
        sampling.setdefault("max_new_tokens", ANSWER_TOKENS)
        if sampling["max_new_tokens"] is None:
            sampling["max_new_tokens"] = ANSWER_TOKENS
        fitted = self.fitted(messages, tools, sampling["max_new_tokens"])
        pieces = self.loaded.stream(fitted.prompt, stop_token_ids=self.end_ids, **sampling)
        return pieces, fitted.left_out

    def fitted(
        self, messages: Messages, tools: Sequence[Any] = (), new_tokens: int = ANSWER_TOKENS
    ) -> Fitted:
        """The conversation as token ids, without its oldest turns where they leave no room for an answer.

        System messages stay. What is left out begins with the user's oldest message and goes on to his next one, so
        that the turns still alternate.

        Args:
            new_tokens: tokens of the answer at most; room for them is kept, up to a quarter of the window.

        Raises:
            Refused: the template refuses the messages; or the last message alone fills the window.
        """
        window = self.window
        whole = chat_prompt(self.template, self.loaded.tokenizer, messages, tools)
        limit = window - min(new_tokens, window // ROOM)
        if len(whole.ids) <= limit:
            return Fitted(whole, 0)
        starts = _starts(messages)

        def kept(start: int) -> Messages:
            return [m for number, m in enumerate(messages) if number >= start or m["role"] == "system"]

        def cut(start: int) -> Prompt:
            return chat_prompt(self.template, self.loaded.tokenizer, kept(start), tools)

        found = bisect_left(starts, True, key=lambda start: len(cut(start).ids) <= limit)
        start = starts[min(found, len(starts) - 1)]
        prompt = cut(start)
        if len(prompt.ids) >= window:
            raise self._too_long(messages[start:], len(prompt.ids))
        return Fitted(prompt, len(messages) - len(kept(start)))

    def _too_long(self, messages: Messages, tokens: int) -> Refused:
        window = self.window
        content = str(messages[-1].get("content") or "")
        around = tokens - len(self.loaded.tokenizer.encode(content))
        room = window - 1 - around
        return Refused(
            f"the message has {tokens:,} tokens with what stands around it; the model's context window holds "
            f"{window:,}, the answer included.",
            where="message",
            why="" if around < window else f"Without a word of it there are {around:,}.",
            do=f"a message of at most {room:,} tokens" if room > 0 else "a shorter system text",
        )


def chat_prompt(
    template: ChatTemplate, tokenizer: Tokenizer, messages: Messages, tools: Sequence[Any] = ()
) -> Prompt:
    """Messages as what the model reads before it answers; the ids are the beginning of those that training sees.

    Raises:
        Refused: the template refuses the messages, or makes nothing of them.
    """
    try:
        text = template.text(messages, tools, add_generation_prompt=True)
    except BadRow as bad:
        raise Refused(
            f"the chat template refuses these messages{f' ({bad.detail})' if bad.detail else ''}.",
            where=template.where,
            why=f"Their roles are {', '.join(str(message['role']) for message in messages[:8])}"
            + (", …." if len(messages) > 8 else "."),
            do="other messages, or --chat-template with another one",
        ) from None
    ids = tokenizer.encode(text, specials=True).tolist()
    if not ids:
        raise Refused("the chat template makes nothing of these messages.", where=template.where)
    return Prompt(text, ids)


def checked(messages: str | Messages, system: str | None = None) -> list[dict[str, Any]]:
    """Messages as templates take them, the last one to be answered.

    Args:
        messages: {"role", "content"} each; a text is one message of the user.
        system: a text that is put in front.

    Raises:
        UsageError: no messages, something else than messages, or nothing to answer, with its place.
    """
    given = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    found = [_message(message, f"messages[{number}]") for number, message in enumerate(given)]
    if system is not None:
        if found and found[0]["role"] == "system":
            raise UsageError("the messages begin with a system text too.", where="system", do="one of them")
        found.insert(0, _message({"role": "system", "content": system}, "system"))
    if not found or found[-1]["role"] in ("assistant", "system"):
        last = f"the last message is of the role {found[-1]['role']}" if found else "there is no message"
        raise UsageError(f"{last}: there is nothing to answer.", where="messages")
    return found


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise UsageError(
            "not a message.", where=where, do='{"role": "user", "content": "Who runs?"}, or a text alone'
        )
    content = message.get("content")
    if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        raise UsageError(f"its content is not a text but {type(content).__name__}.", where=where)
    if GENERATION_MARK in str(content):  # templates use it to mark answers; training refuses it too
        raise UsageError(
            "holds the mark of a template.", where=where, do="the text without the character NUL"
        )
    return {**message, "content": content if content is not None else ""}


def has_template(folder: Path) -> bool:
    """Whether a model folder holds a chat template, seen without opening its tokenizer."""
    return (folder / FILE).is_file() or bool(read_config(folder).get("chat_template"))


def not_taught(path: Path, taught: Sequence[str], example: str = "") -> Refused:
    """The refusal of a model that has no chat template: what it does, and how it is asked for that.

    Args:
        example: what to type, where more must be known for it than the folder.
    """
    place = shlex.quote(str(path))
    command = next((INSTEAD[what] for what in taught if what in INSTEAD), INSTEAD["continues text"])
    why = "How a conversation is written is not guessed; --chat-template gives it all the same."
    if "continues text" in taught:
        why = (
            "It learned from text alone: it writes on from a beginning, in the style of that text, and takes a "
            "question for such a beginning. " + why
        )
    return Refused(
        f"this model was not taught to chat. What it does: {', '.join(taught)}.",
        where=path,
        why=why,
        do=example or f"ownlm {command.format(place)}",
    )


def say_left_out(left_out: int, loaded: LoadedModel) -> None:
    """Say that the conversation is longer than the window."""
    if left_out:
        out.say(
            f"The conversation is longer than the context window of {loaded.context:,} tokens: its oldest {left_out} "
            "messages were left out."
        )


def _starts(messages: Messages) -> list[int]:
    """Where each exchange begins: there the conversation may be cut."""
    first = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages) - 1)
    return [
        number
        for number in range(first, len(messages))
        if number == first or (messages[number]["role"] == "user" and messages[number - 1]["role"] != "user")
    ]
