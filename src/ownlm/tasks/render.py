"""A conversation or a pair as token ids with a mask of what is trained: the answers and the token that ends them.

The whole is rendered, then tokenized once: pieces that are tokenized apart would get other ids at their seams. What is
trained is found in the text and carried to the tokens by their places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ownlm.tasks.items import Chat, Pair
from ownlm.tasks.problems import BadRow
from ownlm.tasks.sandbox import GENERATION_MARK
from ownlm.tasks.templates import ChatTemplate

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A row as the model reads it.

    Attributes:
        text: all of it; for a pair without the tokens before and behind it.
        ids: [tokens].
        trained: [tokens], whether a token is an answer's.
        pieces: [tokens], the text of each; where a character has several tokens, the first one shows it.
        straddling: tokens that begin before an answer and end in it: at use they are never asked for.
        endless: answers without a token that ends them: the model does not learn to stop there.
    """

    text: str
    ids: list[int]
    trained: list[bool]
    pieces: list[str]
    straddling: int
    endless: int


def render_chat(chat: Chat, template: ChatTemplate, tokenizer: Tokenizer) -> Rendered:
    """A conversation through its template; trained is what the assistant says.

    The ids are those of `apply_chat_template` of transformers.

    Raises:
        BadRow: the template refuses the messages, or does not show an answer so that its place could be told.
    """
    specials = re.compile(
        " *(?:" + "|".join(re.escape(t) for t in _longest_first(tokenizer.special_ids)) + ")"
    )
    text, spans = _answers(chat, template, specials if tokenizer.special_ids else None)
    encoding = tokenizer.encode_whole(text, specials=True)
    # `apply_chat_template` adds no tokens around the text: those that it needs are in the template.
    # Each look at a field of an encoding makes the whole list anew.
    tokens = zip(encoding.ids, encoding.offsets, encoding.special_tokens_mask)
    own = [(index, end) for index, (_, end), added in tokens if not added]
    ids, ends = [index for index, _ in own], [end for _, end in own]
    endings = set(tokenizer.special_ids.values())
    return _masked(text, ids, ends, spans, endings)


def render_pair(pair: Pair, tokenizer: Tokenizer) -> Rendered:
    """Prompt and completion as one text, as they are, with the tokens that begin and end a document."""
    text = pair.source + pair.target
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    span = len(pair.source), len(text)
    inner = _masked(text, encoding.ids, [end for _, end in encoding.offsets], [span], set())
    before, end = tokenizer.prefix_ids, tokenizer.eos_id
    names = {index: token for token, index in tokenizer.special_ids.items()}
    return Rendered(
        text,
        [*before, *inner.ids, end],
        [*[False] * len(before), *inner.trained, True],
        [*(names.get(index, "") for index in before), *inner.pieces, names.get(end, "")],
        inner.straddling,
        0,
    )


def _masked(
    text: str, ids: list[int], ends: Sequence[int], spans: Sequence[Span], endings: set[int]
) -> Rendered:
    """Carry spans of the text to its tokens.

    A token reaches from the end of the one before to its own end, whatever its offsets say of where it begins: some
    tokenizers leave spaces out of them. Tokens that share a character end together.
    """
    trained, pieces, straddling, at, number = [], [], 0, 0, 0
    last: dict[int, int] = {}  # number of a span → its last token
    for index, end in enumerate(ends):
        end = max(end, at)
        while number < len(spans) - 1 and spans[number][1] <= at and end > at:
            number += 1
        start, stop = spans[number] if spans else (len(text) + 1, len(text) + 1)
        inside = (end > start and at < stop) if end > at else start < end <= stop
        straddling += inside and at < start
        if inside:
            last[number] = index
        trained.append(bool(inside))
        pieces.append(text[at:end])
        at = end
    endless = sum(ids[index] not in endings for index in last.values()) if endings else 0
    return Rendered(text, list(ids), trained, pieces, straddling, endless)


# ---- where the answers are


def _answers(chat: Chat, template: ChatTemplate, specials: re.Pattern[str] | None) -> tuple[str, list[Span]]:
    """The rendered text and the places of the answers in it, each with the special token that ends it."""
    if any(GENERATION_MARK in str(value) for message in chat.messages for value in message.values()):
        raise BadRow("holds the mark of a template", "Take the character NUL out of it.")
    if template.marks_answers:
        return _unmarked(template.marked(chat.messages, chat.tools))
    text = template.text(chat.messages, chat.tools)
    spans: list[Span] = []
    for number, message in enumerate(chat.messages):
        if message["role"] == "assistant":
            after = spans[-1][1] if spans else 0
            spans.append(_answer(chat, number, text, after, template, specials))
    return text, spans


def _unmarked(marked: str) -> tuple[str, list[Span]]:
    pieces = marked.split(GENERATION_MARK)
    spans, at = [], 0
    for index, piece in enumerate(pieces):
        if index % 2 and piece:
            spans.append((at, at + len(piece)))
        at += len(piece)
    return "".join(pieces), spans


def _answer(
    chat: Chat, number: int, text: str, after: int, template: ChatTemplate, specials: re.Pattern[str] | None
) -> Span:
    """The place of one answer: from the end of the prompt that asks for it to the token that ends it."""
    earlier, message = chat.messages[:number], chat.messages[number]
    asked = template.text(earlier, chat.tools, add_generation_prompt=True)
    plain = template.text(earlier, chat.tools)
    prompted = asked != plain and text.startswith(asked) and len(asked) >= after
    begin = len(asked) if prompted else len(plain) if text.startswith(plain) and len(plain) >= after else -1
    upto = template.text(chat.messages[: number + 1], chat.tools)
    whole = len(upto) if text.startswith(upto) else -1
    if begin < 0:
        raise _hidden(template)
    content = str(message.get("content") or "")
    if message.get("tool_calls") or not content.strip():
        if whole < 0 or not prompted:
            raise _hidden(template)
        return begin, len(upto.rstrip())
    place = _content_place(text, content, begin, whole, specials)
    if place is None:
        raise _hidden(template)
    end = place[1]
    found = specials.match(text, end) if specials is not None else None
    return begin if prompted else place[0], found.end() if found else end


def _content_place(
    text: str, content: str, begin: int, whole: int, specials: re.Pattern[str] | None
) -> Span | None:
    """Where the words of an answer stand; templates strip them, or leave out what was thought before them."""
    spoken = content.rpartition("</think>")[2]
    for form in dict.fromkeys((content, content.strip(), spoken, spoken.strip())):
        if not form:
            continue
        if (
            whole >= 0
        ):  # the last occurrence in the part of this message: before it may stand other words of the template
            at = text.rfind(form, begin, whole)
            if at >= 0:
                return at, at + len(form)
            continue
        at = text.find(form, begin)
        while at >= 0:
            if specials is None or specials.match(text, at + len(form)) or at + len(form) == len(text):
                return at, at + len(form)
            at = text.find(form, at + 1)
    return None


def _hidden(template: ChatTemplate) -> BadRow:
    return BadRow(
        "the chat template does not tell where an answer stands",
        f"Put {{% generation %}} and {{% endgeneration %}} around it in {template.where}, or take another template.",
    )


def _longest_first(words: Iterable[Any]) -> list[str]:
    return sorted(map(str, words), key=len, reverse=True)
