"""Token ids to text while they arrive: what is shown is always whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from ownlm.corpus.tokenizer import Tokenizer


class StreamDecoder:
    """Turns ids into text piece by piece; the bytes of an unfinished character wait for the rest.

    Example:
        decoder = StreamDecoder(tokenizer); text = decoder.push([id]) + ... + decoder.flush()
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.text = ""
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.leading_spaces_stripped

    def push(self, ids: Iterable[int]) -> str:
        """The new valid text that these ids complete (often "": the character goes on)."""
        return self._add(b"".join(map(self.tokenizer.token_bytes, ids)), final=False)

    def flush(self) -> str:
        """The end: an unfinished character becomes U+FFFD."""
        return self._add(b"", final=True)

    def _add(self, data: bytes, *, final: bool) -> str:
        while self._strip and data:
            self._strip = self._strip - 1 if data[:1] == b" " else 0
            data = data.removeprefix(b" ") if data[:1] == b" " else data
        new = self._utf8.decode(data, final)
        self.text += new
        return new
