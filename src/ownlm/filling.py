"""Masks of a text and the tokens that fill them: where a space belongs, what the user typed stays as it is."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer


@dataclass(frozen=True)
class Candidate:
    """A token for a mask.

    Args:
        token: its text, without the space before it.
        id, probability: of the token.
        space_before: true: it begins a word; false: it goes on with what stands before it; None: the vocabulary
            does not say (BERT's punctuation marks and Chinese characters).
    """

    token: str
    id: int
    probability: float
    space_before: bool | None

    def __str__(self) -> str:
        return (" " if self.space_before else "") + self.token


@dataclass(frozen=True)
class Mask:
    """A mask of a text: its place [start, end) in characters, and the most probable tokens, best first."""

    start: int
    end: int
    candidates: list[Candidate]


@dataclass(frozen=True)
class Filled:
    """A text whose masks were filled, each with its most probable token.

    Args:
        prompt, text: with the masks, and filled.
        masks: in order. They are predicted together: no mask sees what another was filled with.
    """

    prompt: str
    text: str
    masks: list[Mask]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Spelling:
    """How the tokens of a vocabulary become text in place of a mask.

    Args:
        tokenizer: of the model.
        mask_token: as it is typed.
    """

    def __init__(self, tokenizer: Tokenizer, mask_token: str) -> None:
        self.tokenizer = tokenizer
        self.wordpiece = tokenizer.spec["model"].get("type") == "WordPiece"
        added = {token["content"]: token for token in tokenizer.spec.get("added_tokens", [])}
        # Whether spaces left of a mask are no part of what the model sees: a token there decides on its own.
        self.takes_spaces = self.wordpiece or bool(added.get(mask_token, {}).get("lstrip"))

    def candidate(self, index: int, probability: float) -> Candidate:
        """A token as a candidate; a special token is spelled, an id past the vocabulary is <id 30600>."""
        token = self.tokenizer.token_bytes(index).decode("utf-8", "replace")
        if not token:
            spelled = self.tokenizer.backend.id_to_token(index) or f"<id {index}>"
            return Candidate(spelled, index, probability, None)
        space: bool | None = token.startswith(" ")
        token = token.removeprefix(" ")
        if self.wordpiece and space and not _spaced(token[:1]):
            space = None
        return Candidate(token, index, probability, space)

    def put_in(self, text: str, masks: list[Mask]) -> str:
        """The text with each mask replaced by its best candidate; white space that was typed stays."""
        found, at = "", 0
        for mask in masks:
            found += text[at : mask.start]
            best, at = mask.candidates[0], mask.end
            if best.space_before is False and self.takes_spaces:
                found = found.rstrip(" ")
            elif best.space_before and found and not found[-1].isspace():
                # In a WordPiece vocabulary each word begins anew, after "(" too.
                found += " " if not self.wordpiece or _spaced(found[-1]) else ""
            found += best.token
            # A WordPiece model took what follows for a word of its own.
            if self.wordpiece and _spaced(found[-1:]) and _spaced(text[at : at + 1]):
                found += " "
        return found + text[at:]


def _spaced(character: str) -> bool:
    """Whether words of such letters are set apart by spaces: letters and digits, but no Chinese characters."""
    return character.isalnum() and not unicodedata.name(character, "").startswith("CJK ")
