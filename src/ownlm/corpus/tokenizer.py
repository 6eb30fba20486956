"""Text to token ids and back: one class over every Hugging Face `tokenizer.json`, ours or somebody else's.

The ids are those of the `tokenizers` library; where `tiktoken` (or a table) can give the same ids faster it
does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus import vocabulary
from ownlm.corpus.vocabulary import without_surrogates

if TYPE_CHECKING:
    import tokenizers

    from ownlm.corpus.encode import FastPath
    from ownlm.corpus.train_tokenizer import Training

Ids = npt.NDArray[np.uint32]

END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"
# Reserved first and for ever, so that chat never resizes the embeddings (ids 0..15).
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>", PAD, *(f"<|spare_{i}|>" for i in range(12)))

PREPARED = "documents_start_with_eos"  # in tokenizer_config.json of a corpus and of the runs made from it

MAX_FILE_BYTES = 200_000_000  # the largest published tokenizer.json is about 35 MB; anything above is not one


class Tokenizer:
    """Text to token ids and back.

    Args:
        text: the content of a `tokenizer.json`.
        config: the content of `tokenizer_config.json` ({} when there is none).
        where: what error messages name.
    """

    def __init__(
        self, text: str, config: dict[str, Any] | None = None, *, where: object = "tokenizer.json"
    ) -> None:
        import tokenizers

        self.text, self.config, self.where = text, dict(config or {}), where
        self.training: Training | None = None  # set by `train_tokenizer`, not kept in the file
        try:
            self.spec: dict[str, Any] = json.loads(text)
            self._bytes = vocabulary.token_bytes(self.spec)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise Refused(f"not a tokenizer.json ({type(error).__name__}: {error}).", where=where) from None
        try:
            self.backend: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(text)
            vocabulary.check_added(self.spec, self.backend.token_to_id)
        except Exception as error:  # the library raises nothing narrower for a file that it cannot read
            raise Refused(f"not a tokenizer: {' '.join(str(error).split())[:200]}.", where=where) from None
        self.backend.no_truncation()
        self.backend.no_padding()
        self.backend.encode_special_tokens = True  # text that spells a special token is ordinary text

    # ---- files

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer in a run folder, a corpus folder, or a `tokenizer.json` file.

        A folder without a `tokenizer.json` may hold GPT-2's vocab.json and merges.txt, sentencepiece's
        tokenizer.model or BERT's vocab.txt; the ids are the same.

        Raises:
            UsageError: nothing there.
            Refused: the files are not a tokenizer.
        """
        from ownlm.corpus import marian, tokenizer_files
        from ownlm.corpus.special_tokens import read_config

        given = Path(path)
        if marian.is_marian(given):
            return marian.MarianTokenizer(given)
        source = None if (given / "tokenizer.json").is_file() else tokenizer_files.find(given)
        if source is not None:
            text, config, where = tokenizer_files.build(given, source)
            return cls(text, config, where=where)
        file = given / "tokenizer.json" if given.is_dir() else given
        if not file.is_file():
            raise UsageError(
                "no tokenizer here." if given.is_dir() else "no such tokenizer.",
                where=given,
                why="A run folder, a corpus folder or a tokenizer.json is needed; a folder with vocab.json and "
                "merges.txt, tokenizer.model or vocab.txt will do.",
            )
        text = tokenizer_files.read_text(file, MAX_FILE_BYTES).replace("\r\n", "\n")
        return cls(text, read_config(file.parent), where=file)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, the first byte for byte as it was read."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / "tokenizer.json").write_text(self.text, encoding="utf-8", newline="")
        config = json.dumps(self.config, ensure_ascii=False, indent=2) + "\n"
        (target / "tokenizer_config.json").write_text(config, encoding="utf-8", newline="")

    # ---- what it is

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included (the largest id + 1)."""
        return len(self._bytes)

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """Special token → id."""
        return {t["content"]: t["id"] for t in self.spec.get("added_tokens", []) if t["special"]}

    @cached_property
    def eos_id(self) -> int:
        """Id of `<|endoftext|>`, which starts every document (in other vocabularies their own end token)."""
        for name in (END_OF_TEXT, _content(self.config.get("eos_token")), "</s>", "<eos>", "[SEP]"):
            index = self._id_of(name)
            if index is not None:
                return index
        raise UsageError(
            "this tokenizer has no token that ends a text.",
            where=self.where,
            why="Documents are separated by it.",
            do='name it in tokenizer_config.json: {"eos_token": "..."}',
        )

    @cached_property
    def prefix_ids(self) -> list[int]:
        """What is put before a prompt.

        <|endoftext|> with our own tokenizers; else what the file's post-processor puts in front of a text:
        nothing for GPT-2, <s> for Llama, [CLS] for BERT.
        """
        if self.ours:
            return [self.eos_id]
        return vocabulary.prefix(self.spec.get("post_processor"))

    @cached_property
    def start_id(self) -> int:
        """The token before the first scored token of a text: the last of the prefix, else what begins a text."""
        if self.prefix_ids:
            return self.prefix_ids[-1]
        for name in (_content(self.config.get("bos_token")), "<s>", "<bos>"):
            index = self._id_of(name)
            if index is not None:
                return index
        return self.eos_id

    @cached_property
    def ours(self) -> bool:
        """Whether documents were prepared with it here: each, and so every prompt, starts with the end token.

        Those trained here always; somebody else's when `prepare --tokenizer` has noted it in its configuration.
        """
        return self.type != "given" or self.config.get(PREPARED) is True

    def encode_prompt(self, text: str) -> list[int]:
        """What a model reads of a text that it shall continue, prefix included; never empty."""
        return [*self.prefix_ids, *self.encode(text).tolist()] or [self.start_id]

    @cached_property
    def pad_id(self) -> int:
        """Id of the padding token; the end token where a vocabulary has none."""
        for name in (PAD, _content(self.config.get("pad_token"))):
            index = self._id_of(name)
            if index is not None:
                return index
        return self.eos_id

    def _id_of(self, token: str | None) -> int | None:
        return None if not token else self.backend.token_to_id(token)

    @cached_property
    def sha256(self) -> str:
        """Hash of what decides the ids (spaces and key order of the file do not)."""
        spec = {k: v for k, v in self.spec.items() if k not in ("truncation", "padding")}
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()

    @property
    def type(self) -> str:
        """'bpe', 'char', 'word' for ours, 'given' for any other."""
        return vocabulary.kind(self.spec, SPECIAL_TOKENS)

    @cached_property
    def _fast(self) -> tuple[FastPath | None, str]:
        from ownlm.corpus import fast_bpe, fast_char

        if self.type == "char":
            return fast_char.build(self.spec)
        return fast_bpe.build(self.spec, self.backend)

    @property
    def fast_path(self) -> FastPath | None:
        """What gives the ids in place of `tokenizers`, if anything does."""
        return self._fast[0]

    @property
    def fast(self) -> bool:
        """Whether ids come from a faster program than `tokenizers` (the same ids)."""
        return self._fast[0] is not None

    @property
    def fast_reason(self) -> str:
        """One sentence: what gives the ids, or why the fast way cannot."""
        return self._fast[1]

    # ---- text → ids

    def encode(self, text: str, *, specials: bool = False) -> Ids:
        """Token ids of a text, uint32 [tokens], without a leading end token.

        Args:
            text: any string; broken surrogates become U+FFFD.
            specials: honour special tokens that the text spells; otherwise they are ordinary text.
        """
        if specials:
            encoding = self._honouring_specials.encode(without_surrogates(text), add_special_tokens=False)
            return np.array(encoding.ids, dtype=np.uint32)
        fast = self.fast_path
        if fast is not None and fast.refuses(text) is None:
            return fast.encode(text)
        return self.encode_slowly(text)

    def encode_whole(self, text: str, *, specials: bool = False) -> tokenizers.Encoding:
        """A text with what the tokenizer puts around it ([CLS] … [SEP]), for models that read a whole text.

        `special_tokens_mask` is 1 at what was put there; `offsets` are places in the text in characters.
        """
        backend = self._honouring_specials if specials else self.backend
        return backend.encode(without_surrogates(text), add_special_tokens=True)

    @cached_property
    def _honouring_specials(self) -> tokenizers.Tokenizer:
        import tokenizers

        backend = tokenizers.Tokenizer.from_str(self.text)
        backend.no_truncation()
        backend.no_padding()
        return backend

    def encode_slowly(self, text: str) -> Ids:
        """The reference: ids from `tokenizers`, uint32 [tokens]."""
        encoding = self.backend.encode(without_surrogates(text), add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text, quicker for many short ones."""
        from ownlm.corpus.encode import encode_documents

        return encode_documents(self, texts)[0]

    # ---- ids → text

    def token_bytes(self, index: int) -> bytes:
        """The bytes of one id; b"" for special tokens and for ids past the vocabulary (padded embeddings)."""
        return self._bytes[index] if 0 <= index < len(self._bytes) else b""

    @cached_property
    def token_byte_lengths(self) -> npt.NDArray[np.int32]:
        """Bytes of each id, int32 [vocab]; 0 for special tokens."""
        return np.array([len(b) for b in self._bytes], dtype=np.int32)

    @cached_property
    def leading_spaces_stripped(self) -> int:
        """How many spaces decoding removes at the start of a text (sentencepiece adds one there)."""
        return vocabulary.leading_spaces_stripped(self.spec)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ids stand for, special tokens left out."""
        found = b"".join(map(self.token_bytes, _integers(ids)))
        if self.leading_spaces_stripped:
            spaces = len(found) - len(found.lstrip(b" "))
            found = found[min(self.leading_spaces_stripped, spaces) :]
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for, special tokens left out; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.text, self.config, str(self.where))


def _integers(ids: Iterable[int]) -> Iterable[int]:
    return ids.tolist() if hasattr(ids, "tolist") else ids


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _rebuild(text: str, config: dict[str, Any], where: str) -> Tokenizer:
    return Tokenizer(text, config, where=where)
