"""What is refused before it waits: prompts without tokens or room, what can never fit, windows that do not exist."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import Refused, UsageError
from ownlm.engine.requests import Request
from ownlm.model.config import ModelConfig


def checked_ids(request: Request, vocab_size: int, adapters: Container[int]) -> npt.NDArray[np.int32]:
    """The prompt as int32 [tokens].

    Raises:
        UsageError: no token, ids that the model does not have, or an adapter that nobody added.
    """
    ids = np.asarray(request.prompt_ids, dtype=np.int64)
    settings = request.settings
    if len(ids) == 0:
        raise UsageError("a prompt needs at least one token.", where="prompt")
    named = [*settings.stop_token_ids, *settings.logit_bias]
    for where, low, high in (
        ("prompt", ids.min(), ids.max()),
        ("stop_token_ids, logit_bias", min(named, default=0), max(named, default=0)),
    ):
        if low < 0 or high >= vocab_size:
            raise UsageError(f"token ids lie between 0 and {vocab_size - 1:,}.", where=where)
    if request.adapter and request.adapter not in adapters:
        raise UsageError(f"there is no adapter {request.adapter}.", where="adapter", do="Engine.add_adapter")
    if request.embedding is not None and settings.n > 1:
        raise UsageError("an embedding is one for a prompt.", where="n", do="n=1")
    return ids.astype(np.int32)


def longest_text(request: Request, tokens: int, longest: int, max_context: int, capacity: int) -> int:
    """The length at which the sequences of a request end, prompt and answer together.

    Args:
        tokens: of the prompt.
        longest: tokens of prompt and answer at most, by the model.
        max_context: tokens of the window. capacity: tokens that the cache holds.

    Raises:
        UsageError: a `max_length` without room for an answer.
        Refused: a prompt that fills the window, or a text that the cache can never hold.
    """
    settings = request.settings
    scored_only = settings.max_new_tokens == 0
    generates = not scored_only and request.embedding is None
    if tokens > max_context + scored_only - generates:
        raise Refused(
            f"the prompt has {tokens:,} tokens; the context window holds {max_context:,}.",
            where="prompt",
            why="Prompt and answer share it." if generates else "",
            do="a shorter prompt",
        )
    if settings.max_length is not None and settings.max_length <= tokens:
        raise UsageError(
            f"max_length is {settings.max_length:,}, and the prompt has {tokens:,} tokens already.",
            where="max_length",
            do="a larger max_length, or max_new_tokens",
        )
    asked = settings.max_length
    if asked is None and settings.max_new_tokens is not None:
        asked = tokens + settings.max_new_tokens
    limit = min(longest, capacity + 1) if asked is None else min(asked, longest)
    if not generates:
        limit = tokens
    # Nothing follows the last token of a text, so it is not computed, unless its own state is wanted.
    if max(limit, tokens + generates) - (request.embedding is None) > capacity:
        raise Refused(
            f"a text of {max(limit, tokens):,} tokens; the cache holds {capacity:,}.",
            where="cache_memory",
            do="a larger cache_memory, or fewer tokens",
        )
    return limit


def checked_context(config: ModelConfig, wanted: int | None) -> int:
    """The context window that was asked for, or the model's.

    Raises:
        UsageError: one that the model was not made for.
    """
    made_for = config.max_position_embeddings
    if wanted is not None and not 1 < wanted <= made_for:
        raise UsageError(
            f"a context of {wanted:,} tokens; this model was made for {made_for:,}.",
            where="max_context",
            do=f"max_context between 2 and {made_for}",
        )
    return wanted or made_for
