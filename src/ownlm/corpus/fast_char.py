"""Characters to ids by a table: the ids of byte-fallback BPE without merges, some fifty times quicker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.corpus.vocabulary import has_surrogates, model_vocabulary

# A character that is none: no text holds it, and one that does is encoded on its own.
SEPARATOR = "\ufdd0"
_NONE = np.uint32(0xFFFFFFFF)


class FastChar:
    """Encoding through one table over all code points.

    Args:
        spec: the parsed `tokenizer.json` of a character vocabulary.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        vocabulary = model_vocabulary(spec)
        self._bytes = np.array([vocabulary[f"<0x{byte:02X}>"] for byte in range(256)], dtype=np.uint32)
        self._table = np.full(0x110000, _NONE)
        for token, index in vocabulary.items():
            if len(token) == 1:
                self._table[ord(token)] = index

    def refuses(self, text: str) -> str | None:
        """Why this text is not for the table (None: it is)."""
        return "broken surrogates" if not text.isascii() and has_surrogates(text) else None

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Token ids, uint32 [tokens]; characters outside the vocabulary as their UTF-8 bytes."""
        return self._encode(text, None)

    def _encode(self, text: str, end_id: int | None) -> npt.NDArray[np.uint32]:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        ids = self._table[points]
        if end_id is not None:
            ids[points == ord(SEPARATOR)] = end_id
        unknown = np.flatnonzero(ids == _NONE)
        if not len(unknown):
            return ids
        missing = points[unknown]
        lengths = 1 + (missing >= 0x80).astype(np.intp) + (missing >= 0x800) + (missing >= 0x10000)
        counts = np.ones(len(ids), dtype=np.intp)
        counts[unknown] = lengths
        result = np.repeat(ids, counts)
        raw = np.frombuffer("".join(map(chr, missing.tolist())).encode("utf-8"), dtype=np.uint8)
        result[result == _NONE] = self._bytes[raw]
        return result

    def encode_joined(self, texts: Sequence[str], end_id: int) -> npt.NDArray[np.uint32] | None:
        """Ids of all texts in one array, `end_id` before each text; None when one of them is refused."""
        joined = SEPARATOR + SEPARATOR.join(texts)
        if joined.count(SEPARATOR) != len(texts) or self.refuses(joined) is not None:
            return None
        return self._encode(joined, end_id)


def build(spec: dict[str, Any]) -> tuple[FastChar, str]:
    """(the fast path, one sentence what it is)."""
    return FastChar(spec), "a table from characters to ids"
