"""The bytes behind every id of a Hugging Face `tokenizer.json`, read from the file, not from decoded text.

Decoded text cannot give them: a token may hold part of a character, and `decode` turns that into U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

MAX_VOCABULARY = 4_000_000  # the largest published vocabulary is about 1,000,000
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable characters for the bytes (Radford et al. 2019, `bytes_to_unicode`), with their byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + position): byte for position, byte in enumerate(others)})
    return alphabet


def parts(section: dict[str, Any] | None, key: str) -> Iterator[dict[str, Any]]:
    """The components of a pre-tokenizer, decoder or normalizer, sequences (nested too) laid flat."""
    if section is None:
        return
    if section.get("type") == "Sequence":
        for inner in section[key]:
            yield from parts(inner, key)
    else:
        yield section


def model_vocabulary(spec: dict[str, Any]) -> dict[str, int]:
    """Token → id of the model part, whatever its kind (Unigram stores a list of pairs)."""
    vocabulary = spec["model"]["vocab"]
    if isinstance(vocabulary, list):
        return {token: index for index, (token, _) in enumerate(vocabulary)}
    return vocabulary


def token_bytes(spec: dict[str, Any]) -> list[bytes]:
    """The bytes of each id, index = id; special tokens and unused ids are b"".

    Args:
        spec: the parsed `tokenizer.json`.
    """
    vocabulary = model_vocabulary(spec)
    added = {token["id"]: token for token in spec.get("added_tokens", [])}
    size = check_ids([*vocabulary.items(), *((t["content"], t["id"]) for t in spec.get("added_tokens", []))])
    table = [b""] * size
    convert = _converter(spec)
    for token, index in vocabulary.items():
        table[index] = convert(token)
    for index, token in added.items():
        table[index] = b"" if token["special"] else token["content"].encode("utf-8", "replace")
    return table


def check_ids(pairs: Iterable[tuple[str, int]]) -> int:
    """How many ids tokens need (the largest + 1).

    Some published vocabularies have a few ids without a token; more holes than tokens are a damaged file.

    Args:
        pairs: (token, id); a token may come twice with the same id.

    Raises:
        ValueError: no ids, ids out of range, two tokens with one id, one token with two ids, most ids missing.
    """
    ids: dict[str, int] = {}
    tokens: dict[int, str] = {}
    for token, index in pairs:
        if type(index) is not int or not 0 <= index < MAX_VOCABULARY:
            raise ValueError(f"the id of {token[:60]!r} is {index!r}; 0 to {MAX_VOCABULARY - 1} are read")
        if tokens.setdefault(index, token) != token:
            raise ValueError(f"{tokens[index][:60]!r} and {token[:60]!r} have both the id {index}")
        if ids.setdefault(token, index) != index:
            raise ValueError(f"{token[:60]!r} has the ids {ids[token]} and {index}")
    if not ids:
        raise ValueError("there are no tokens")
    size = max(tokens) + 1
    if size > 2 * len(tokens):
        raise ValueError(f"ids run up to {size - 1}, and there are {len(tokens)} tokens")
    return size


def check_added(spec: dict[str, Any], token_to_id: Callable[[str], int | None]) -> None:
    """Refuse an added token that claims another id than the library gives it.

    Raises:
        ValueError: the token is not in the vocabulary, and its id is not the next one.
    """
    for token in spec.get("added_tokens", []):
        got = token_to_id(token["content"])
        if got != token["id"]:
            raise ValueError(
                f"the added token {token['content'][:60]!r} claims the id {token['id']}, and gets {got}"
            )


def _converter(spec: dict[str, Any]) -> Callable[[str], bytes]:
    decoders = list(parts(spec.get("decoder"), "decoders"))
    kinds = {decoder["type"] for decoder in decoders}
    if "ByteLevel" in kinds or (not kinds and is_byte_level(spec)):
        alphabet = byte_level_alphabet()

        def from_byte_level(token: str) -> bytes:
            try:
                return bytes([alphabet[character] for character in token])
            except KeyError:
                return token.encode("utf-8", "replace")

        return from_byte_level
    replaced = [
        (decoder["pattern"].get("String", ""), decoder["content"])
        for decoder in decoders
        if decoder["type"] == "Replace" and decoder["pattern"].get("String")
    ]
    if "Metaspace" in kinds:
        replaced.append((next(d for d in decoders if d["type"] == "Metaspace")["replacement"], " "))
    byte_tokens = "ByteFallback" in kinds
    wordpiece = spec["model"].get("type") == "WordPiece"
    prefix = spec["model"].get("continuing_subword_prefix") or ""

    def from_text(token: str) -> bytes:
        byte = _BYTE_TOKEN.fullmatch(token) if byte_tokens else None
        if byte:
            return bytes([int(byte[1], 16)])
        if wordpiece:
            token = token[len(prefix) :] if prefix and token.startswith(prefix) else " " + token
        for old, new in replaced:
            token = token.replace(old, new)
        return token.encode("utf-8", "replace")

    return from_text


def is_byte_level(spec: dict[str, Any]) -> bool:
    """Whether the vocabulary is written in GPT-2's byte alphabet."""
    return any(part["type"] == "ByteLevel" for part in parts(spec.get("pre_tokenizer"), "pretokenizers"))


def leading_spaces_stripped(spec: dict[str, Any]) -> int:
    """How many spaces decoding removes at the start (sentencepiece puts one in front of a text)."""
    for part in parts(spec.get("decoder"), "decoders"):
        if part["type"] == "Strip" and part["content"] == " ":
            return int(part["start"])
        if part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never":
            return 1
    return 1 if spec["model"].get("type") == "WordPiece" else 0


def prefix(post_processor: dict[str, Any] | None) -> list[int]:
    """The ids that a post-processor puts before a single text.

    Args:
        post_processor: that section of a `tokenizer.json`.
    """
    found: list[int] = []
    for part in parts(post_processor, "processors"):
        if part["type"] in ("BertProcessing", "RobertaProcessing"):
            found = [part["cls"][1], *found]
        elif part["type"] == "TemplateProcessing":
            before: list[int] = []
            for step in part["single"]:
                if "Sequence" in step:
                    break
                before += part["special_tokens"][step["SpecialToken"]["id"]]["ids"]
            found = before + found
    return found


def kind(spec: dict[str, Any], special_tokens: Sequence[str]) -> str:
    """'bpe', 'char' or 'word' for the vocabularies trained here, 'given' for any other.

    Args:
        spec: the parsed `tokenizer.json`.
        special_tokens: the reserved tokens, which ours have as ids 0, 1, 2, ...
    """
    first = {token["id"]: token["content"] for token in spec.get("added_tokens", [])}
    if [first.get(index) for index in range(len(special_tokens))] != list(special_tokens):
        return "given"
    model = spec["model"]
    if model["type"] != "BPE" or spec.get("normalizer") is not None:
        return "given"
    if not model["byte_fallback"]:
        return "bpe" if is_byte_level(spec) else "given"
    if model["merges"]:
        return "given"
    return "word" if model["ignore_merges"] and spec.get("pre_tokenizer") else "char"


def has_surrogates(text: str) -> bool:
    """Whether a string holds halves of surrogate pairs, which are no characters and have no UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def without_surrogates(text: str) -> str:
    """Pairs of surrogates joined, broken ones replaced by U+FFFD; any other text as it was."""
    if text.isascii() or not has_surrogates(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
