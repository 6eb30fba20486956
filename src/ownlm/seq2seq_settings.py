"""The search that an encoder-decoder model's own files ask for: beams, lengths, penalties."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.console.errors import UsageError
from ownlm.json_files import read_object
from ownlm.model.checkpoint import read_config
from ownlm.task_methods.fitting import NEW_TOKENS

# Fields that are said, by what they are called.
SAID = {
    "num_beams": "beams", "length_penalty": "length_penalty", "no_repeat_ngram_size": "no_repeat_ngram_size",
    "early_stopping": "early_stopping", "min_length": "min_length", "repetition_penalty": "repetition_penalty",
    "do_sample": "do_sample",
}  # fmt: skip


@dataclass(frozen=True)
class SearchSettings:
    """What one search uses.

    Attributes:
        config: transformers' `GenerationConfig`. limit: tokens of an answer at most. end_ids: tokens that end it.
        forces_end: the last place is made an end. note: a sentence about it, "" for plain greedy search.
    """

    config: Any
    limit: int
    end_ids: tuple[int, ...]
    forces_end: bool
    note: str


def task_settings(path: Path, task: str) -> dict[str, Any]:
    """What config.json says of a task, such as {"prefix": "summarize: ", "num_beams": 4}; {} where it says nothing."""
    named = read_config(path).get("task_specific_params")
    found = named.get(task) if isinstance(named, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def search_settings(
    inner: Any, path: Path, of_task: dict[str, Any], max_new_tokens: int | None, options: dict[str, Any]
) -> SearchSettings:
    """The model's own settings, what they say of the task, and what was asked for.

    Args:
        inner: the model of transformers. path: its folder. of_task: fields that count for the task.
        max_new_tokens: None: what the settings say, else 256. options: fields that were asked for.

    Raises:
        UsageError: a number that cannot be, or a field that there is not.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise UsageError(f"{max_new_tokens} tokens; it must be at least 1.", where="max_new_tokens")
    config = copy.deepcopy(inner.generation_config)
    own = {name: value for name, value in of_task.items() if hasattr(config, name) and name != "prefix"}
    for name, value in (own | options).items():
        if not hasattr(config, name):
            raise UsageError("there is no such option.", where=name)
        setattr(config, name, value)
    limit = _limit(config, path, own | options, max_new_tokens)
    if config.min_length and config.min_length > limit:
        config.min_length = limit
    ends = config.eos_token_id
    end_ids = tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)
    note = _note(config, limit)
    return SearchSettings(config, limit, end_ids, config.forced_eos_token_id is not None, note)


def _limit(config: Any, path: Path, given: dict[str, Any], asked: int | None) -> int:
    """Tokens of an answer at most, set in the config; `max_length` of a decoder counts its first token too."""
    limit = asked or given.get("max_new_tokens")
    if limit is None:
        named = [
            given,
            *(
                read_object(path / f)
                for f in ("generation_config.json", "config.json")
                if (path / f).is_file()
            ),
        ]
        lengths = (entry.get("max_new_tokens") or (entry.get("max_length") or 1) - 1 for entry in named)
        limit = next((length for length in lengths if isinstance(length, int) and length > 0), NEW_TOKENS)
    config.max_new_tokens, config.max_length = limit, limit + 1
    return int(limit)


def _note(config: Any, limit: int) -> str:
    usual = type(config)()
    said = [
        f"{words} {getattr(config, name)}"
        for name, words in SAID.items()
        if getattr(config, name) not in (None, getattr(usual, name), 1, 1.0, 0, False)
    ]
    return f"its own settings: {', '.join(said)}, at most {limit} tokens." if said else ""
