"""Documents to token ids, many at a time: the step of `prepare` that reads every byte of a corpus."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ownlm.corpus.tokenizer import Ids, Tokenizer


class FastPath(Protocol):
    """Another program that gives the ids of `tokenizers`."""

    def refuses(self, text: str) -> str | None:
        """Why this text must go to `tokenizers` (None: it need not)."""

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Token ids of a text that is not refused."""


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[Ids], Counter[str]]:
    """Ids of each text (without a leading end token), and how many texts fell back to `tokenizers`, by reason."""
    fallbacks: Counter[str] = Counter()
    fast = tokenizer.fast_path
    if fast is None:
        fallbacks[tokenizer.fast_reason] += len(texts)
        return [tokenizer.encode_slowly(text) for text in texts], fallbacks
    ids: list[Ids] = []
    for text in texts:
        reason = fast.refuses(text)
        if reason is None:
            ids.append(fast.encode(text))
        else:
            fallbacks[reason] += 1
            ids.append(tokenizer.encode_slowly(text))
    return ids, fallbacks


class Encoder:
    """A tokenizer that worker processes open once each: pickled as a path.

    Args:
        path: a folder or `tokenizer.json`, as `Tokenizer.load` takes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.tokenizer = Tokenizer.load(path)
        self.fallbacks: Counter[str] = Counter()

    def encode_documents(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, uint32 [tokens], without the leading end token; fallbacks are added to `.fallbacks`."""
        ids, fallbacks = encode_documents(self.tokenizer, texts)
        self.fallbacks.update(fallbacks)
        return ids

    def __reduce__(self) -> tuple[type[Encoder], tuple[str]]:
        return Encoder, (self.path,)
