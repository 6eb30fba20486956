"""Make a vocabulary from a sample of the corpus: byte-level BPE, or on request characters or words."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.fast_bpe import QWEN2_PATTERN
from ownlm.corpus.tokenizer import END_OF_TEXT, PAD, SPECIAL_TOKENS, Tokenizer
from ownlm.corpus.vocabulary import without_surrogates
from ownlm.corpus.vocabulary_size import WIDE, choose_vocab_size

Kind = Literal["bpe", "char", "word"]

# The sample stops at the first of the two. All bytes: twice as much changes the tokens of held-out English by
# 0.1 to 0.5 %. Bytes of distinct words: they decide the memory, about 120 bytes of RSS each; a Chinese clause
# is one "word" for \p{L}+ and hardly ever comes twice, so 7 MB of them are 9 to 11 MB of Chinese and 1.0 GB;
# 4 MB instead change the tokens of held-out Chinese by 0.2 %.
SAMPLE_BYTES = 32_000_000
DISTINCT_WORD_BYTES = 7_000_000
PIECE_CHARACTERS = 65_536  # tokenizers buffers 256 texts: whole books would need hundreds of MB
MIN_COUNT = 4  # a character or word seen less often cannot be learnt; its bytes stand for it
RESERVED = len(SPECIAL_TOKENS) + 256

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Training:
    """How a vocabulary came about: UTF-8 bytes of its sample, and one sentence on its size."""

    sample_bytes: int
    why: str


def check_vocab_size(vocab_size: int | None) -> None:
    """Raise UsageError for a vocabulary too small for the special tokens and the bytes."""
    if vocab_size is not None and vocab_size < RESERVED:
        raise UsageError(
            f"a vocabulary of {vocab_size} is too small.",
            where="--vocab-size",
            why=f"{len(SPECIAL_TOKENS)} special tokens and 256 bytes are always in it.",
            do=f"--vocab-size {max(512, RESERVED)}",
        )


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int | None, kind: Kind = "bpe", corpus_bytes: int
) -> Tokenizer:
    """A tokenizer for these texts; its `.training` says how large the sample was and how the size was chosen.

    Args:
        texts: the sample, chosen by the caller; reading stops at `SAMPLE_BYTES` or `DISTINCT_WORD_BYTES`.
        vocab_size: number of ids with the 16 special ones and the 256 bytes; None: chosen from the corpus.
        kind: 'bpe' byte-level BPE; 'char' characters; 'word' words; the last two fall back to bytes.
        corpus_bytes: UTF-8 bytes of the whole corpus.

    Raises:
        Refused: the sample is empty.
        UsageError: a vocabulary too small for the bytes.
    """
    check_vocab_size(vocab_size)
    sample = list(pieces(texts))
    sample_bytes = sum(len(piece.encode()) for piece in sample)
    if not sample_bytes:
        raise Refused("no text to train a tokenizer on.", why="Every document is empty.")
    why = f"{vocab_size:,} was asked for" if vocab_size is not None else ""
    if vocab_size is None and kind != "char":
        characters = Counter(character for piece in sample for character in WIDE.findall(piece))
        vocab_size, why = choose_vocab_size(corpus_bytes, characters)
    if kind == "bpe":
        text = _train_bpe(sample, vocab_size or 0)
    else:
        words = _frequent_words(sample, vocab_size or 0) if kind == "word" else []
        vocabulary = _characters_and_words(sample, words, vocab_size)
        text = _byte_fallback(vocabulary, kind)
        why = why or f"every character seen {MIN_COUNT} times or more"
    tokenizer = Tokenizer(text, config())
    tokenizer.training = Training(sample_bytes, why)
    return tokenizer


def pieces(texts: Iterable[str]) -> Iterator[str]:
    """The texts up to the cap, in pieces of 65,536 characters or less, cut after line ends if there are any."""
    total = distinct = 0
    seen: set[int] = set()
    for text in texts:
        text = without_surrogates(text)
        start = 0
        while start < len(text):
            end = min(start + PIECE_CHARACTERS, len(text))
            if end < len(text):
                end = text.rfind("\n", start, end) + 1 or end
            piece = text[start:end]
            start = end
            for word in set(_WORD.findall(piece)):
                key = hash(word)
                if key not in seen:
                    seen.add(key)
                    distinct += len(word.encode())
            total += len(piece.encode())
            yield piece
            if total >= SAMPLE_BYTES or distinct >= DISTINCT_WORD_BYTES:
                return


def config() -> dict[str, Any]:
    """`tokenizer_config.json`: with this class transformers opens our ids (5.23 rebuilds other classes)."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "model_max_length": 1_000_000_000_000,
        "clean_up_tokenization_spaces": False,
    }


def _train_bpe(sample: Iterable[str], vocab_size: int) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    return backend.to_str(pretty=True)


def _frequent_words(sample: Iterable[str], limit: int) -> list[str]:
    """Pre-tokens of the sample, most frequent first."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.WordLevel({}, unk_token=""))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    trainer = trainers.WordLevelTrainer(vocab_size=limit, min_frequency=MIN_COUNT, show_progress=False)
    backend.train_from_iterator(sample, trainer)
    found = backend.get_vocab()
    return sorted(found, key=found.__getitem__)


def _characters_and_words(sample: list[str], words: list[str], vocab_size: int | None) -> list[str]:
    """Tokens after the bytes. Characters take at most half of the room when there are words."""
    counts: Counter[str] = Counter()
    for piece in sample:
        counts.update(piece)
    ranked = sorted((c for c, n in counts.items() if n >= MIN_COUNT), key=lambda c: (-counts[c], c))
    room = len(ranked) if vocab_size is None else vocab_size - RESERVED
    if not words:
        return ranked[:room]
    characters = ranked[: room // 2]
    known = set(characters)
    return characters + [word for word in words if word not in known][: room - len(characters)]


def _byte_fallback(vocabulary: list[str], kind: Kind) -> str:
    """A BPE without merges: a whole pre-token ('word'), else its characters, else their UTF-8 bytes."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    names = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *vocabulary]
    ids = {token: index for index, token in enumerate(names)}
    backend = Tokenizer(models.BPE(ids, [], byte_fallback=True, ignore_merges=kind == "word"))
    if kind == "word":
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS])
    return json.dumps(json.loads(backend.to_str()), ensure_ascii=False, indent=2)
