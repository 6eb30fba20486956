"""A byte-level BPE run by `tiktoken`, with the ids of `tokenizers`: where that is possible, and where not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ownlm.corpus.engine_differences import differing_characters, reads_alike
from ownlm.corpus.fast_chinese import FastChinese
from ownlm.corpus.vocabulary import byte_level_alphabet, has_surrogates, model_vocabulary, parts

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

# Qwen2's pre-tokenisation (Qwen team 2024): English contractions; a run of letters with one other character
# in front; single digits; punctuation with its line ends; line ends; spaces but the last before a word.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What `ByteLevel(use_regex=True)` means (Radford et al. 2019).
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same alternatives, those without look-ahead in one group: the regex engine then hands them to its
# automaton in one call instead of one call each (about 15 % of the encoding time).
_QUICKER = {
    QWEN2_PATTERN: "(?:" + QWEN2_PATTERN.removesuffix(r"|\s+(?!\S)|\s+") + r")|\s+(?!\S)|\s+",
    GPT2_PATTERN: "(?:" + GPT2_PATTERN.removesuffix(r"|\s+(?!\S)|\s+") + r")|\s+(?!\S)|\s+",
}

# tiktoken's regex engine backtracks over a run of spaces and overflows its stack at about a million.
MAX_SPACES = 10_000
_LONG_SPACES = re.compile(rf"\s{{{MAX_SPACES + 1}}}")
# Looking at every 1,250th character is enough to see such a run: eight or more neighbours in the sample are
# spaces.
_STRIDE = 1250
_MANY_SPACES = re.compile(rf"\s{{{MAX_SPACES // _STRIDE}}}")

# Stands between documents that are encoded in one call. A control character ("record separator"), which
# text hardly ever holds; a document that does is encoded on its own.
SEPARATOR = "\x1e"


class FastBpe:
    """Encoding through tiktoken, and of Chinese text through arrays.

    Args:
        encoding: the tiktoken encoding made from the same merges; `SEPARATOR` is its special token.
        tokens: the bytes of every token when the pattern is Qwen2's, else None.
        always: contents of added tokens that `tokenizers` finds inside ordinary text.
        differing: characters that the two regex engines sort differently.
    """

    def __init__(
        self,
        encoding: tiktoken.Encoding,
        tokens: list[bytes] | None,
        always: list[str],
        differing: re.Pattern[str] | None,
    ) -> None:
        self.encoding, self._tokens = encoding, tokens
        self._always = re.compile("|".join(map(re.escape, always))) if always else None
        self._differing = differing

    def refuses(self, text: str) -> str | None:
        """Why this text is not for tiktoken (None: it is)."""
        if len(text) > MAX_SPACES and _MANY_SPACES.search(text[::_STRIDE]) and _LONG_SPACES.search(text):
            return f"more than {MAX_SPACES:,} spaces in a row"
        if self._always is not None and self._always.search(text):
            return "spells an added token"
        if text.isascii():
            return None
        if has_surrogates(text):
            return "broken surrogates"
        if self._differing is not None and self._differing.search(text):
            return "characters that the regex engines sort differently"
        return None

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Token ids, uint32 [tokens], of a text that is not refused."""
        return self.encoding.encode_to_numpy(text, disallowed_special=())

    def encode_joined(self, texts: Sequence[str], end_id: int) -> npt.NDArray[np.uint32] | None:
        """Ids of all texts in one array, `end_id` before each text; None when one of them is refused."""
        joined = SEPARATOR + SEPARATOR.join(texts)
        if joined.count(SEPARATOR) != len(texts) or self.refuses(joined) is not None:
            return None
        if self._tokens is not None and FastChinese.suits(joined):
            ids = self._chinese.encode(joined)
        else:
            ids = self.encoding.encode_to_numpy(joined, allowed_special={SEPARATOR}, disallowed_special=())
        return np.where(ids == self.encoding.max_token_value, np.uint32(end_id), ids)

    @cached_property
    def _chinese(self) -> FastChinese:
        return FastChinese(self.encoding, self._tokens or [], SEPARATOR)


def build(spec: dict[str, Any], backend: tokenizers.Tokenizer) -> tuple[FastBpe | None, str]:
    """(the fast path or None, one sentence why).

    Args:
        spec: the parsed `tokenizer.json`.
        backend: the same tokenizer, opened.
    """
    pattern, reason = _pattern(spec)
    if pattern is None:
        return None, reason
    reason = _other_rules(spec)
    if reason:
        return None, reason
    ranks, reason = _ranks(spec, backend)
    if reason:
        return None, reason
    import tiktoken

    try:
        encoding = tiktoken.Encoding(
            "ownlm",
            pat_str=_QUICKER.get(pattern, pattern),
            mergeable_ranks=ranks,
            special_tokens={SEPARATOR: max(ranks.values()) + 1},
        )
        differing = differing_characters(pattern)
    except ValueError as error:
        return None, f"tiktoken does not take its regex ({error})"
    always = [token["content"] for token in spec.get("added_tokens", []) if not token["special"]]
    tokens = list(ranks) if pattern == QWEN2_PATTERN else None
    return FastBpe(encoding, tokens, always, differing), "tiktoken, made from the same merges"


def _pattern(spec: dict[str, Any]) -> tuple[str | None, str]:
    found = list(parts(spec.get("pre_tokenizer"), "pretokenizers"))
    kinds = [part["type"] for part in found]
    if spec.get("normalizer") is not None:
        return None, f"its normalizer ({spec['normalizer'].get('type')}) is not in tiktoken"
    if not found or found[-1]["type"] != "ByteLevel":
        return None, f"its pre-tokenizer ({' + '.join(kinds) or 'none'}) is not in tiktoken"
    if found[-1].get("add_prefix_space"):
        return None, "it puts a space in front of a text, which tiktoken does not"
    if kinds == ["ByteLevel"] and found[0].get("use_regex", True):
        return GPT2_PATTERN, ""
    split = found[0]
    by_regex = kinds == ["Split", "ByteLevel"] and not found[1].get("use_regex", True)
    if by_regex and split["behavior"] == "Isolated" and not split["invert"] and "Regex" in split["pattern"]:
        regex = split["pattern"]["Regex"]
        return (regex, "") if reads_alike(regex) else (None, "its regex may mean something else in tiktoken")
    return None, f"its pre-tokenizer ({' + '.join(kinds)}) is not in tiktoken"


def _other_rules(spec: dict[str, Any]) -> str:
    model = spec["model"]
    if model["type"] != "BPE":
        return f"a {model['type']} vocabulary is not in tiktoken"
    for rule in ("byte_fallback", "dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(rule):
            return f"its rule {rule} is not in tiktoken"
    return ""


def _ranks(spec: dict[str, Any], backend: tokenizers.Tokenizer) -> tuple[dict[bytes, int], str]:
    """tiktoken's table (bytes → id), or why its order of merging could differ.

    tiktoken merges the adjacent pair whose concatenation has the lowest id; `tokenizers` the pair that
    comes first in the list. The two agree when (1) each merge makes a token that no earlier one made, from
    tokens that exist, (2) ids rise with the list, (3) a token's own bytes merge into that token: then at
    the moment a token's turn comes, its bytes stand as the listed pair or are cut by a token that came
    earlier, in both programs.
    """
    alphabet = byte_level_alphabet()
    special = {token["content"] for token in spec.get("added_tokens", []) if token["special"]}
    vocabulary = {t: i for t, i in model_vocabulary(spec).items() if t not in special}
    try:
        ranks = {bytes([alphabet[character] for character in token]): i for token, i in vocabulary.items()}
    except KeyError:
        return {}, "a token is not in the byte alphabet"
    if len(ranks) != len(vocabulary) or any(bytes([byte]) not in ranks for byte in range(256)):
        return {}, "not every byte is a token"
    made = {character: vocabulary[character] for character in alphabet}
    highest = -1
    for merge in spec["model"]["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        token = left + right
        if left not in made or right not in made or token in made or vocabulary[token] <= highest:
            return {}, f"its merges are not in the order of their ids (at {token!r})"
        highest = made[token] = vocabulary[token]
    if len(made) != len(vocabulary):
        return {}, f"{len(vocabulary) - len(made)} tokens are not made by a merge"
    tokenize = backend.model.tokenize
    for token, index in made.items():
        if [part.id for part in tokenize(token)] != [index]:
            return {}, f"the token {token!r} is not what its own bytes merge into"
    return ranks, ""
