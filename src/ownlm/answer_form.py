"""What ends an answer, and what form it is held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import Refused, UsageError
from ownlm.json_files import read_object

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.constrained import TokenBytes
    from ownlm.engine.requests import Constraint


def stop_ids(path: Path, tokenizer: Tokenizer, vocab_size: int) -> tuple[int, ...]:
    """Tokens that end an answer: the tokenizer's end token and `eos_token_id` of generation_config.json.

    Without that file the one of config.json counts, as in transformers.

    Args:
        path: the model's folder. vocab_size: of the model.

    Raises:
        Refused: the file is damaged, or names what is no token of the model.
    """
    try:
        found = [tokenizer.eos_id]
    except UsageError:  # it names none: then the ids of the model's own files end a text
        found = []
    for name in ("generation_config.json", "config.json"):
        file = path / name
        if not file.is_file():
            continue
        named = read_object(file).get("eos_token_id")
        for index in named if isinstance(named, list) else [] if named is None else [named]:
            if type(index) is not int or not 0 <= index < vocab_size:
                raise Refused(
                    f"eos_token_id names {index!r}, the model has the tokens 0 to {vocab_size - 1:,}.",
                    where=file,
                )
            found.append(index)
        break
    return tuple(dict.fromkeys(found))


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Texts that end an answer.

    Raises:
        UsageError: one of them is empty.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in stops:
        raise UsageError("an empty stop string would end every text at once.", where="--stop")
    return stops


def token_bytes(tokenizer: Tokenizer, stop_ids: Sequence[int], vocab_size: int) -> TokenBytes:
    """A vocabulary as constraints on the output see it.

    Args:
        stop_ids: tokens that end an answer. vocab_size: of the model.
    """
    from ownlm.engine.constrained import TokenBytes

    tokens = [tokenizer.token_bytes(index) for index in range(tokenizer.vocab_size)]

    def encode(data: bytes) -> list[int]:
        return [int(index) for index in tokenizer.encode(data.decode("utf-8", "replace"))]

    return TokenBytes(tokens, stop_ids, vocab_size, encode)


def constraint_of(
    vocabulary: TokenBytes, schema: Mapping[str, Any] | None, choices: Sequence[str], regex: str | None = None
) -> Constraint:
    """What holds an answer to a JSON schema, to one of several texts or to a regular expression.

    Raises:
        UsageError: several of them, or what cannot be followed, by name.
    """
    from ownlm.engine.constrained import json_schema, matching, one_of

    given = {"--schema": schema is not None, "--choices": bool(choices), "--regex": regex is not None}
    first, *others = [name for name, on in given.items() if on] or ["--choices"]
    if others:
        raise UsageError(f"set together with {first}.", where=others[0], do="only one of them")
    if schema is not None:
        return json_schema(vocabulary, schema, where=first)
    if regex is not None:
        return matching(vocabulary, regex, where=first)
    return one_of(vocabulary, choices, where=first)
