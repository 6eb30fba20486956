"""Labels of tokens as entities of a text, in the shapes and by the rules of transformers' token classification.

Strategies: `none`, each token with its label; `simple`, neighbours with the same label; `first`, `max` and `average`,
the same after the tokens of a word have agreed: on the label of the first, of the surest, or of their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ownlm.console.errors import UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.headed_inputs import Window
from ownlm.headed_logits import Logits, softmax

STRATEGIES = ("none", "simple", "first", "max", "average")
OUTSIDE = "O"


@dataclass(frozen=True)
class TaggedToken:
    """A token of a text.

    Attributes:
        index: its place in the row that the tokenizer makes of the text.
        word: as the vocabulary spells it.
        probabilities: float64 [labels].
        start, end: its characters.
        goes_on: it belongs to the word of the token before it.
    """

    index: int
    word: str
    probabilities: Logits
    start: int
    end: int
    goes_on: bool


def tagged_tokens(
    tokenizer: Tokenizer,
    text: str,
    ids: Sequence[int],
    begin: int,
    offsets: Sequence[tuple[int, int]],
    probabilities: Logits,
) -> list[TaggedToken]:
    """The tokens of a text.

    Args:
        ids, offsets, probabilities: of its tokens. begin: place of the first one in its row.
    """
    named = tokenizer.spec["model"].get("unk_token") or tokenizer.config.get("unk_token")
    spelled = named.get("content") if isinstance(named, dict) else named
    unknown = tokenizer.backend.token_to_id(spelled) if spelled else None
    continues = tokenizer.spec["model"].get("continuing_subword_prefix")
    found = []
    for place, (index, (start, end)) in enumerate(zip(ids, offsets)):
        word = tokenizer.backend.id_to_token(index) or ""
        if continues:
            goes_on = len(word) != end - start
        else:
            goes_on = start > 0 and " " not in text[start - 1 : start + 1]
        if index == unknown:
            word, goes_on = text[start:end], False
        found.append(TaggedToken(begin + place, word, probabilities[place], start, end, goes_on))
    return found


def entities(
    tokens: Sequence[TaggedToken], labels: Sequence[str], tokenizer: Tokenizer, strategy: str
) -> list[dict[str, Any]]:
    """What is outside of entities is left out.

    Returns:
        {"entity", "score", "index", "word", "start", "end"} of each token; with another strategy than `none`
        {"entity_group", "score", "word", "start", "end"} of each entity.

    Raises:
        UsageError: an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise UsageError(
            f'there is no strategy "{strategy}".', where="aggregation_strategy", do=", ".join(STRATEGIES)
        )
    if strategy in ("none", "simple"):
        found = [_of_token(token, labels) for token in tokens]
    else:
        found = [_of_word(word, labels, tokenizer, strategy) for word in _words(tokens)]
    if strategy == "none":
        return [entity for entity in found if entity["entity"] != OUTSIDE]
    grouped = [_of_group(group, tokenizer) for group in _groups(found)]
    return [entity for entity in grouped if entity["entity_group"] != OUTSIDE]


def _of_token(token: TaggedToken, labels: Sequence[str]) -> dict[str, Any]:
    best = int(token.probabilities.argmax())
    return {
        "entity": labels[best],
        "score": float(token.probabilities[best]),
        "index": token.index,
        "word": token.word,
        "start": token.start,
        "end": token.end,
    }


def _words(tokens: Sequence[TaggedToken]) -> list[list[TaggedToken]]:
    words: list[list[TaggedToken]] = []
    for token in tokens:
        if words and token.goes_on:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _of_word(
    word: list[TaggedToken], labels: Sequence[str], tokenizer: Tokenizer, strategy: str
) -> dict[str, Any]:
    if strategy == "average":
        probabilities = np.mean([token.probabilities for token in word], axis=0)
    elif strategy == "max":
        probabilities = max(word, key=lambda token: float(token.probabilities.max())).probabilities
    else:
        probabilities = word[0].probabilities
    best = int(probabilities.argmax())
    return {
        "entity": labels[best],
        "score": float(probabilities[best]),
        "word": _spelled(tokenizer, [token.word for token in word]),
        "start": word[0].start,
        "end": word[-1].end,
    }


def _groups(found: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Neighbours of one kind; B- begins a new one."""
    groups: list[list[dict[str, Any]]] = []
    for entity in found:
        begins, kind = split_tag(entity["entity"])
        if groups and kind == split_tag(groups[-1][-1]["entity"])[1] and not begins:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return groups


def split_tag(tag: str) -> tuple[bool, str]:
    """(whether it begins an entity, the kind of entity): "B-PER" -> (True, "PER")."""
    return tag.startswith("B-"), tag[2:] if tag.startswith(("B-", "I-")) else tag


def _of_group(group: list[dict[str, Any]], tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "entity_group": group[0]["entity"].split("-", 1)[-1],
        "score": float(np.mean([entity["score"] for entity in group])),
        "word": _spelled(tokenizer, [entity["word"] for entity in group]),
        "start": group[0]["start"],
        "end": group[-1]["end"],
    }


def _spelled(tokenizer: Tokenizer, words: list[str]) -> str:
    decoder = tokenizer.backend.decoder
    return " ".join(words) if decoder is None else str(decoder.decode(words))


def token_probabilities(
    windows: Sequence[Sequence[Window]], logits: Sequence[Sequence[Logits]], labels: int
) -> list[Logits]:
    """Probabilities [tokens, labels] of texts; of a token that two windows hold, those where it is farther from an edge."""
    found = []
    for its, values in zip(windows, logits):
        rows = np.zeros((its[-1].stop, labels))
        for window, row in zip(its, values):
            tokens = row[window.begin :][window.first - window.start : window.last - window.start]
            rows[window.first : window.last] = softmax(tokens)
        found.append(rows)
    return found
