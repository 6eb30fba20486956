"""Where a text is least expected: each token with its place, its probability, and what was expected there."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ownlm.evaluation.documents import Encoded, Text, encoded
from ownlm.evaluation.scoring import score_tokens

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.scoring import Scored, Scorer

TOGETHER = 64  # documents whose places are held at the same time


@dataclass(frozen=True)
class Place:
    """One token of a text.

    Args:
        name, line, column: where it begins; both counted from 1, the column in characters. Of a row of a table
            the line is the row's, and the column counts from the start of its text.
        token: its text; bytes that are no whole character as <0xE6>.
        probability, logprob: given all that stands before it (natural logarithm).
        expected: (token, probability) of the most probable tokens there.
    """

    name: str
    line: int
    column: int
    token: str
    probability: float
    logprob: float
    expected: list[tuple[str, float]]

    def __str__(self) -> str:
        instead = ", ".join(f"{quoted(token)} ({p:.2g})" for token, p in self.expected)
        where = f"{self.name}:{self.line}:{self.column}"
        return f"{where} {quoted(self.token)} p = {self.probability:.2g}, expected {instead}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def strangest_places(
    model: Scorer,
    tokenizer: Tokenizer,
    texts: Iterable[Text],
    *,
    context: int,
    stride: int | None = None,
    top: int = 20,
) -> list[Place]:
    """The `top` least probable tokens of all texts, least probable first (equal ones in reading order)."""
    kept: list[tuple[float, int, Place]] = []
    number = 0
    for batch in _batches(texts):
        for text, item, scored in score_texts(model, tokenizer, batch, context=context, stride=stride):
            found = _positions(tokenizer, text, item)
            # Only the lowest of a document can be among the lowest of all.
            for index in np.argsort(scored.logprobs, kind="stable")[:top].tolist():
                number += 1
                place = _place(tokenizer, text, item, scored, found[index], index)
                kept.append((place.logprob, number, place))
        kept = heapq.nsmallest(top, kept, key=lambda entry: entry[:2])
    return [place for _, _, place in kept]


def score_texts(
    model: Scorer,
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    *,
    context: int,
    stride: int | None = None,
    top: int = 1,
) -> Iterator[tuple[Text, Encoded, Scored]]:
    """Each text with its tokens and their scores."""
    items = list(encoded(tokenizer, (text.text for text in texts)))
    scores = score_tokens(model, [item.ids for item in items], context=context, stride=stride, top=top)
    yield from zip(texts, items, scores)


def places(tokenizer: Tokenizer, text: Text, item: Encoded, scored: Scored) -> list[Place]:
    """Every token of a text, in order."""
    found = _positions(tokenizer, text, item)
    return [_place(tokenizer, text, item, scored, at, index) for index, at in enumerate(found)]


def _place(
    tokenizer: Tokenizer, text: Text, item: Encoded, scored: Scored, at: tuple[int, int], index: int
) -> Place:
    logprob = float(scored.logprobs[index])
    best = zip(scored.top_ids[index].tolist(), scored.top_logprobs[index].tolist())
    expected = [(shown(tokenizer.token_bytes(i)), math.exp(p)) for i, p in best]
    token = shown(tokenizer.token_bytes(int(item.ids[index + 1])))
    return Place(text.name, *at, token, math.exp(logprob), logprob, expected)


def _positions(tokenizer: Tokenizer, text: Text, item: Encoded) -> list[tuple[int, int]]:
    """(line, column) where each token after the <|endoftext|> begins."""
    lengths = tokenizer.token_byte_lengths[item.ids[1:]]
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    # A space that the tokenizer puts before a text is in its first token and not in the text.
    starts = np.clip(starts - tokenizer.leading_spaces_stripped, 0, len(item.data))
    data = np.frombuffer(item.data + b" ", np.uint8)  # one byte more: a special token may stand at the end
    # A token that begins inside a character has that character's place.
    character = np.cumsum((data & 0xC0) != 0x80) - 1
    if text.is_row:
        return [(text.line, int(character[start]) + 1) for start in starts]
    ends = np.flatnonzero(data == 0x0A)
    lines = np.searchsorted(ends, starts)  # line ends before each token
    begins = character[np.concatenate([[0], ends + 1])]
    columns = character[starts] - begins[lines] + 1
    return list(zip((text.line + lines).tolist(), columns.tolist()))


def shown(data: bytes) -> str:
    """The text of a token; bytes that are not whole characters as <0xE6>, a special token as <special>."""
    if not data:
        return "<special>"
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in data)


def quoted(token: str) -> str:
    """A token in quotes, line ends and tabs visible."""
    return json.dumps(token, ensure_ascii=False)


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    for text in texts:
        batch.append(text)
        if len(batch) == TOGETHER:
            yield batch
            batch = []
    if batch:
        yield batch
