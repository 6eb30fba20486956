"""Special and added tokens of a tokenizer that comes without a `tokenizer.json`.

They are spread over `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`. The order in which they
are added decides the ids of new ones; it is the one of transformers 5 (`TokenizersBackend.__init__`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ownlm.console.errors import Refused
from ownlm.corpus.tokenizer_spec import added_token
from ownlm.corpus.vocabulary import MAX_VOCABULARY, model_vocabulary

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_BYTES = 200_000_000  # the largest published tokenizer.json has about 35 MB


def read_json(file: Path, *, unique: bool = False) -> dict[str, Any]:
    """A file that holds one JSON object; {} where there is none.

    Args:
        unique: refuse a key that comes twice; else the last one counts.

    Raises:
        Refused: something else is in it.
    """
    if not file.is_file():
        return {}
    if file.stat().st_size > MAX_BYTES:
        raise Refused(f"larger than {MAX_BYTES // 10**6} MB.", where=file)
    try:
        found = json.loads(
            file.read_bytes().decode("utf-8"), object_pairs_hook=_without_repeats if unique else None
        )
    except (ValueError, RecursionError) as error:
        raise Refused(f"not a JSON file: {error}.", where=file) from None
    if not isinstance(found, dict):
        raise Refused("a JSON object is expected.", where=file)
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:60]!r} comes twice")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with the tokens of special_tokens_map.json where the first lists no added tokens."""
    config = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= read_json(folder / "special_tokens_map.json")
    return config


def content(token: Any) -> str | None:
    """The text of a token that is written as text or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def index_of(spec: dict[str, Any], token: str) -> int:
    """The id of a token that is in the vocabulary or was added."""
    for entry in spec["added_tokens"]:
        if entry["content"] == token:
            return int(entry["id"])
    return model_vocabulary(spec)[token]


def add(spec: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Put the special and added tokens into `spec["added_tokens"]`.

    Args:
        spec: content of a tokenizer.json. config: from `read_config`. folder: holds the files.

    Raises:
        Refused: a token is to have an id that belongs to another one, or that it cannot get.
    """
    vocabulary = dict(model_vocabulary(spec))
    entries = {entry["content"]: entry for entry in spec["added_tokens"]}
    taken = {index: token for token, index in vocabulary.items()}
    named = _named(config)
    special = {content(token) for token in named}
    for token, wanted, where in _listed(config, named, folder):
        text = content(token)
        if not isinstance(text, str) or not text:
            raise Refused(f"{token!r} is no token.", where=where)
        highest = max((entry["id"] for entry in entries.values()), default=-1)
        new = highest + 1 if highest >= len(vocabulary) else len(vocabulary)
        index = vocabulary[text] if text in vocabulary else entries[text]["id"] if text in entries else new
        if taken.setdefault(index, text) != text or (wanted is not None and wanted != index):
            raise Refused(
                f"the token {text[:60]!r} cannot have the id {index if wanted is None else wanted}.",
                where=where,
                why=f"That is {taken.get(wanted if wanted is not None else index, 'unused')!r}; "
                f"the vocabulary gives it {index}.",
            )
        if index >= MAX_VOCABULARY:
            raise Refused(f"more than {MAX_VOCABULARY:,} ids.", where=where)
        flags = {k: bool(v) for k, v in token.items() if k != "content"} if isinstance(token, dict) else {}
        if text not in entries or isinstance(token, dict):
            entries[text] = added_token(
                index, text, **(flags | ({"special": True} if text in special else {}))
            )
    spec["added_tokens"] = sorted(entries.values(), key=lambda entry: int(entry["id"]))
    # Their flags are in the list now; an object in tokenizer_config.json is not read by transformers everywhere.
    config |= {key: content(config[key]) for key in NAMED if isinstance(config.get(key), dict)}
    for key in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(config.get(key), list):
            config[key] = [content(token) for token in config[key]]


def _named(config: dict[str, Any]) -> list[Any]:
    """The tokens that have a name, then the others that are called special."""
    named = [config[key] for key in NAMED if config.get(key) is not None]
    others = [
        value
        for key, value in config.items()
        if key.endswith("_token") and key not in NAMED and isinstance(value, str | dict)
    ]
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    return [*named, *others, *(extra.values() if isinstance(extra, dict) else extra)]


def _listed(config: dict[str, Any], named: list[Any], folder: Path) -> list[tuple[Any, int | None, Path]]:
    """(token, the id that a file claims for it, the file), in the order of adding."""
    found: list[tuple[Any, int | None, Path]] = []
    file = folder / "tokenizer_config.json"
    special = {content(token) for token in named}
    try:
        if "added_tokens_decoder" in config:
            listed = sorted((int(key), token) for key, token in config["added_tokens_decoder"].items())
            found += [(dict(token), index, file) for index, token in listed]
        else:
            file = folder / "added_tokens.json"
            # Without flags: a token that is no special one is looked for in the normalised text.
            listed = sorted((int(index), token) for token, index in read_json(file).items())
            found += [({"content": t, "normalized": t not in special}, index, file) for index, t in listed]
    except (TypeError, ValueError, AttributeError):
        raise Refused("ids of added tokens are numbers, each with one token.", where=file) from None
    known = {content(token) for token, _, _ in found}
    file = folder / "tokenizer_config.json"
    return found + [(token, None, file) for token in named if content(token) not in known]
