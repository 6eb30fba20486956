"""Documents to token ids, many at a time: the step of `prepare` that reads every byte of a corpus."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ownlm.corpus.tokenizer import Ids, Tokenizer

# Short documents go through in one call of about this many characters: 85,000 poems are then as quick as
# books. Larger groups are slower, their arrays leave the cache: 0.25 s at 100,000 and at 250,000, 0.27 s at
# 500,000, 0.38 s at 1,000,000 (6.3 million characters).
GROUP_CHARACTERS = 200_000


class FastPath(Protocol):
    """Another program that gives the ids of `tokenizers`."""

    def refuses(self, text: str) -> str | None:
        """Why this text must go to `tokenizers` (None: it need not)."""

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Token ids of a text that is not refused."""

    def encode_joined(self, texts: Sequence[str], end_id: int) -> npt.NDArray[np.uint32] | None:
        """Ids of all texts in one array, `end_id` before each text; None when one of them is refused."""


def encode_stream(
    tokenizer: Tokenizer, texts: Sequence[str]
) -> tuple[Ids, npt.NDArray[np.int64], Counter[str]]:
    """The ids of all texts as a shard holds them: each text after the end token.

    Returns:
        ids, uint32 [tokens]; the number of ids of each text with its end token, int64 [texts]; how many
        texts went to `tokenizers`, by reason.
    """
    fallbacks: Counter[str] = Counter()
    end_id = tokenizer.eos_id
    found: list[Ids] = [np.zeros(0, np.uint32)]
    lengths: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for group in _groups(texts):
        ids = tokenizer.fast_path.encode_joined(group, end_id) if tokenizer.fast_path else None
        if ids is not None:
            found.append(ids)
            lengths.append(np.diff(np.flatnonzero(ids == end_id), append=len(ids)))
        else:
            separate = _one_by_one(tokenizer, group, end_id, fallbacks)
            found += separate
            lengths.append(np.array([len(ids) for ids in separate], np.int64))
    return np.concatenate(found), np.concatenate(lengths), fallbacks


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[Ids], Counter[str]]:
    """Ids of each text without the end token, and how many texts went to `tokenizers`, by reason."""
    stream, lengths, fallbacks = encode_stream(tokenizer, texts)
    ends = np.cumsum(lengths).tolist()
    return [stream[start + 1 : end] for start, end in zip([0, *ends], ends)], fallbacks


def _groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    first = size = 0
    for position, text in enumerate(texts):
        size += len(text)
        if size >= GROUP_CHARACTERS:
            yield texts[first : position + 1]
            first, size = position + 1, 0
    if first < len(texts):
        yield texts[first:]


def _one_by_one(
    tokenizer: Tokenizer, texts: Sequence[str], end_id: int, fallbacks: Counter[str]
) -> list[Ids]:
    fast = tokenizer.fast_path
    end = np.array([end_id], np.uint32)
    found = []
    for text in texts:
        reason = tokenizer.fast_reason if fast is None else fast.refuses(text)
        if fast is not None and reason is None:
            ids = fast.encode(text)
        else:
            fallbacks[str(reason)] += 1
            ids = tokenizer.encode_slowly(text)
        found.append(np.concatenate([end, ids]))
    return found


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
        """Ids of each text, uint32 [tokens], without the leading end token; counts go to `.fallbacks`."""
        ids, fallbacks = encode_documents(self.tokenizer, texts)
        self.fallbacks.update(fallbacks)
        return ids

    def encode_stream(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
        """(ids of all texts, each after the end token; ids of each text with it): see `encode_stream`."""
        ids, lengths, fallbacks = encode_stream(self.tokenizer, texts)
        self.fallbacks.update(fallbacks)
        return ids, lengths

    def __reduce__(self) -> tuple[type[Encoder], tuple[str]]:
        return Encoder, (self.path,)
