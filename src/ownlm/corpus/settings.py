"""The settings of `prepare`, resolved: what decides the content of a corpus, and what only how it is made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.corpus.discover import valid_name
from ownlm.corpus.hashes import minhash_available
from ownlm.corpus.readers import ReadSettings
from ownlm.corpus.split import Rule
from ownlm.corpus.staging import Cleaning

REVISION = 1  # of the staged formats and rules: parts made by another revision are made again


@dataclass(frozen=True)
class PrepareSettings:
    """As `ownlm.prepare` takes them; see there."""

    sources: tuple[str, ...]
    output: Path
    vocab_size: int | None = None
    tokenizer: str | None = None
    tokenizer_type: str = "bpe"
    column: str = "text"
    documents: str = "file"
    validation: tuple[str, ...] = ("auto",)
    group_by: str | None = None
    near_duplicates: str = "drop"
    exact_duplicates: str = "drop"
    filters: tuple[str, ...] = ()
    fix_mojibake: bool = False
    exclude: tuple[str, ...] = ()
    seed: int = 0
    workers: int | None = None
    overwrite: bool = False  # make it again, whatever is there
    renew: bool = False  # make it again only if settings or sources have changed

    def content(self) -> dict[str, Any]:
        """What decides the content of the corpus, as its manifest holds it."""
        apart = ("output", "workers", "overwrite", "renew")
        return {
            name: list(map(_valid, value)) if isinstance(value, tuple) else _valid(value)
            for name, value in vars(self).items()
            if name not in apart
        }

    @property
    def near(self) -> str:
        """`near_duplicates`, or "off" when the library that computes signatures is not installed."""
        return self.near_duplicates if minhash_available() else "off"

    @property
    def rule(self) -> Rule:
        """How validation text is chosen."""
        return Rule.parse(self.validation)

    @property
    def reading(self) -> ReadSettings:
        """What the readers need."""
        documents: Any = self.documents
        return ReadSettings(self.column, documents, self.group_by)

    @property
    def cleaning(self) -> Cleaning:
        """What is done with every text."""
        return Cleaning(self.filters, self.fix_mojibake, self.near != "off")

    def staging_key(self) -> str:
        """Everything that decides the content of a staged part, except the task's sources."""
        reading = self.reading
        return key(
            REVISION, reading.column, reading.documents, reading.group_by, *vars(self.cleaning).values()
        )


def _valid(value: Any) -> Any:
    """A name that is not valid Unicode in a form that can be written; anything else as it is."""
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return valid_name(value)
    return value


def key(*parts: object) -> str:
    """A short name for what these values decide."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
