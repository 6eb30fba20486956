"""Texts as rows of a model with a task head: one rule, for training and for use.

What stands around a text, and between a question and its context, is what the post-processor of tokenizer.json puts
there ([CLS] question [SEP] context [SEP] in BERT). Causal tokenizers have no rule for two texts; `causal_rule` gives
the tokenizer of a new run one, so that transformers reads its texts as they are read here.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import Refused
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.corpus.vocabulary import parts as processors
from ownlm.corpus.vocabulary import without_surrogates
from ownlm.evaluation.pseudo import parts

if TYPE_CHECKING:
    import tokenizers

BETWEEN = "\n"  # question and context of a causal model
SHARE = 4  # the part of the window that must be left for what it moves over


@dataclass(frozen=True)
class Encoded:
    """A text, or two, as token ids. A window that is too small moves over the tokens [first, last).

    Attributes:
        ids, types: of the whole row; the type is 1 in the second text where the tokenizer says so.
        first, last: the tokens of the text, of a pair those of the text that is read through windows.
        offsets: (start, end) in characters of each of these tokens, in its text or in its word.
        words: the word that each of these tokens belongs to; [] where the text was not given in words.
    """

    ids: list[int]
    types: list[int]
    first: int
    last: int
    offsets: list[tuple[int, int]]
    words: list[int]


@dataclass(frozen=True)
class Window:
    """What the model reads at once: the tokens [start, stop) of the text, with what stands around them.

    Attributes:
        ids, types: of the row.
        begin: place in the row of the token `start`.
        first, last: of the tokens that two windows hold, those that are farther from an edge in this one.
    """

    ids: list[int]
    types: list[int]
    begin: int
    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class HeadInputs:
    """How a model with a head reads texts.

    Attributes:
        tokenizer: of the model.
        context: tokens of a row at most, what stands around the text included.
    """

    tokenizer: Tokenizer
    context: int

    def text(self, text: str) -> Encoded:
        """One text; never empty."""
        return self._encoded(self.tokenizer.encode_whole(text), 0)

    def words(self, words: Sequence[str]) -> Encoded:
        """A text that is given in words; each is encoded by itself, with the space before it where there is one.

        Between Chinese or Japanese characters there is none.
        """
        spelled = [without_surrogates(word) for word in words]
        if self._space_belongs_to_word:
            spelled = [
                f" {word}" if number and _apart(spelled[number - 1], word) else word
                for number, word in enumerate(spelled)
            ]
        return self._encoded(self.tokenizer.backend.encode(spelled, is_pretokenized=True), 0, in_words=True)

    def pair(self, first: str, second: str, *, windowed: int = 1) -> Encoded:
        """Two texts, such as question and context.

        Args:
            windowed: 0 or 1: the text that is read through windows when the two are too long together.
        """
        given = without_surrogates(first), without_surrogates(second)
        return self._encoded(self.tokenizer.backend.encode(*given), windowed)

    @cached_property
    def _space_belongs_to_word(self) -> bool:
        """Whether a word's tokens hold the space before it (byte-level BPE), and not only say that one was there."""

        def ids(text: str) -> list[int]:
            return self.tokenizer.encode_slowly(text).tolist()

        return ids("a b") != ids("a") + ids("b") and ids("a b") == ids("a") + ids(" b")

    def _encoded(self, found: tokenizers.Encoding, text: int, *, in_words: bool = False) -> Encoded:
        places = [place for place, owner in enumerate(found.sequence_ids) if owner == text]
        around = len(self.tokenizer.prefix_ids)
        first = places[0] if places else (min(around, len(found.ids)) if text == 0 else len(found.ids))
        last = places[-1] + 1 if places else first
        words = [word for word in found.word_ids[first:last] if word is not None] if in_words else []
        ids, types = (found.ids, found.type_ids) if found.ids else ([self.tokenizer.start_id], [0])
        return Encoded(ids, types, first, last, found.offsets[first:last], words)

    def windows(
        self, encoded: Encoded, stride: int | None = None, where: object = "question"
    ) -> list[Window]:
        """The rows that read an encoded text: one where it fits, else overlapping ones.

        Args:
            stride: tokens by which windows advance; None: half of what a window holds.
            where: what a message names.

        Raises:
            UsageError: a stride that cannot be. Refused: what stands beside the text leaves too little room.
        """
        tokens = encoded.last - encoded.first
        beside = len(encoded.ids) - tokens
        room = self.context - beside
        if tokens > room and room < max(self.context // SHARE, 1):
            most = self.context - max(self.context // SHARE, 1)
            raise Refused(
                f"{beside:,} tokens stand beside the text; the window holds {self.context:,}.",
                where=where,
                why="The rest of it must hold a part of the text.",
                do=f"at most {max(most, 1):,} tokens beside it: the question and the special tokens",
            )
        found = list(parts(tokens, room, stride)) if tokens > room else []
        if not found:
            return [Window(encoded.ids, encoded.types, encoded.first, 0, tokens, 0, tokens)]
        before, after = slice(encoded.first), slice(encoded.last, None)
        return [
            Window(
                [*encoded.ids[before], *encoded.ids[encoded.first :][start:stop], *encoded.ids[after]],
                [*encoded.types[before], *encoded.types[encoded.first :][start:stop], *encoded.types[after]],
                encoded.first,
                start,
                stop,
                first,
                last,
            )
            for start, stop, first, last in found
        ]

    def cut(self, encoded: Encoded) -> Window:
        """The first window alone: the text, cut where it does not fit."""
        tokens = encoded.last - encoded.first
        stop = max(min(tokens, self.context - (len(encoded.ids) - tokens)), 0)
        end = encoded.first + stop
        ids, types = (values[:end] + values[encoded.last :] for values in (encoded.ids, encoded.types))
        return Window(ids, types, encoded.first, 0, stop, 0, stop)

    def first_tokens(self, encoded: Encoded) -> Iterator[tuple[int, int]]:
        """(word, token counted from `first`) of each word's first token that is more than a space.

        A word of which nothing is left in the vocabulary has none.
        """
        seen = set()
        for token, word in enumerate(encoded.words):
            if word in seen:
                continue
            spelled = self.tokenizer.token_bytes(encoded.ids[encoded.first + token])
            last = token + 1 == len(encoded.words) or encoded.words[token + 1] != word
            if spelled.strip() or not spelled or last:
                seen.add(word)
                yield word, token


def _apart(word: str, following: str) -> bool:
    """Whether a space stands between two words: not where one ends and the other begins with a character without."""
    return not (_unspaced(word[-1:]) and _unspaced(following[:1]))


def _unspaced(character: str) -> bool:
    """Whether a character belongs to a script that sets no spaces between words, or to its punctuation."""
    return unicodedata.name(character, "").startswith(
        ("CJK ", "HIRAGANA", "KATAKANA", "FULLWIDTH", "IDEOGRAPHIC")
    )


def causal_rule(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of a run with a head on a causal model.

    A text begins as a prompt of the model does; two texts stand behind each other with a line break between them.
    The ids of the texts themselves stay the same.
    """
    spec = copy.deepcopy(tokenizer.spec)
    kept = [
        part
        for part in processors(spec.get("post_processor"), "processors")
        if part["type"] == "ByteLevel"  # says whether offsets hold the space before a word
    ]
    name = tokenizer.backend.id_to_token
    tokens = {str(name(index)): [index] for index in tokenizer.prefix_ids}
    start = [{"SpecialToken": {"id": token, "type_id": 0}} for token in tokens]
    between: list[dict[str, Any]] = []
    if ids := tokenizer.encode_slowly(BETWEEN).tolist():
        tokens["line break"] = ids
        between = [{"SpecialToken": {"id": "line break", "type_id": 0}}]
    first, second = ({"Sequence": {"id": text, "type_id": 0}} for text in "AB")
    rule = {
        "type": "TemplateProcessing",
        "single": [*start, first],
        "pair": [*start, first, *between, second],
        "special_tokens": {
            token: {"id": token, "ids": ids, "tokens": [str(name(index)) for index in ids]}
            for token, ids in tokens.items()
        },
    }
    spec["post_processor"] = {"type": "Sequence", "processors": [*kept, rule]} if kept else rule
    text = json.dumps(spec, ensure_ascii=False, indent=2) + "\n"
    # With another class transformers makes a post-processor of its own.
    config = tokenizer.config | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return Tokenizer(text, config, where=tokenizer.where)
