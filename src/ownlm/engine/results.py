"""From a sequence to what a backend is asked, and from its results to what a sequence learns of its prompt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ownlm.console.errors import OwnlmError
from ownlm.engine.backend import Piece
from ownlm.engine.blocks import blocks_for
from ownlm.engine.requests import Event, FinishReason, TokenScores
from ownlm.engine.sampling import choose, log_normaliser, most_probable
from ownlm.engine.scheduler import Chunk
from ownlm.engine.sequences import Sequence


def piece_of(chunk: Chunk) -> Piece:
    """What a backend is asked for."""
    sequence, start, end = chunk.sequence, chunk.sequence.computed, chunk.sequence.computed + chunk.tokens
    return Piece(
        sequence.key,
        sequence.ids[start:end],
        start,
        np.array(sequence.blocks[: blocks_for(end)], np.int32),
        np.arange(max(sequence.wanted_from - start, 0), chunk.tokens, dtype=np.int32),
        sequence.adapter,
    )


def score_prompt(sequence: Sequence, piece: Piece, rows: npt.NDArray[np.float32]) -> None:
    """Keep the log-probabilities of the prompt's tokens that these rows tell."""
    for position, logits in zip((piece.outputs + piece.start).tolist(), rows):
        if position != sequence.next_scored or position >= sequence.prompt_length - 1:
            continue
        normaliser = log_normaliser(logits)
        ids, logprobs = most_probable(logits, normaliser, sequence.settings.prompt_logprobs or 0)
        own = float(logits[sequence.ids[position + 1]]) - normaliser
        sequence.scores.append((own, ids, logprobs))


def prompt_scores(sequence: Sequence) -> TokenScores:
    """The scores of a prompt whose tokens were all looked at."""
    top = max((len(ids) for _, ids, _ in sequence.scores), default=0)
    count = len(sequence.scores)
    return TokenScores(
        np.array([logprob for logprob, _, _ in sequence.scores], np.float64),
        np.array([ids for _, ids, _ in sequence.scores], np.int64).reshape(count, top),
        np.array([logprobs for _, _, logprobs in sequence.scores], np.float64).reshape(count, top),
    )


def add_states(sequence: Sequence, rows: npt.NDArray[np.float32]) -> None:
    """Add final hidden states [O, C] to those of a sequence.

    Raises:
        OwnlmError: they are not finite.
    """
    if not np.isfinite(rows).all():
        raise OwnlmError(
            "the model's output is not a finite number.",
            why="Its weights are damaged, or training diverged.",
        )
    for row in rows:  # one after the other: the same sum however the prompt was cut
        sequence.states = row.astype(np.float64) if sequence.states is None else sequence.states + row


def read_event(sequence: Sequence) -> Event:
    """What a sequence gives that was read and generates nothing."""
    if sequence.embedding is None:
        return Event(sequence.request_id, sequence.index, -1, 0.0, "length", prompt=prompt_scores(sequence))
    assert sequence.states is not None
    count = sequence.length if sequence.embedding == "mean" else 1
    state = (sequence.states / count).astype(np.float32)
    return Event(sequence.request_id, sequence.index, -1, 0.0, "length", embedding=state)


def next_event(sequence: Sequence, logits: npt.NDArray[np.float32]) -> Event:
    """Choose the next token of a sequence from the logits [V] after its last one, and add it.

    Raises:
        OwnlmError: the logits are not finite, or no token is allowed.
    """
    settings, constraint = sequence.settings, sequence.constraint
    allowed = constraint.mask() if constraint is not None else None
    token = choose(logits, settings, sequence.seen, sequence.index, sequence.prompt_length, allowed)
    normaliser = log_normaliser(logits)
    if constraint is not None:
        constraint.accept(token)
    first = sequence.length == sequence.prompt_length
    prompt = prompt_scores(sequence) if first and settings.prompt_logprobs is not None else None
    sequence.append(token)
    reason: FinishReason | None = None
    if token in settings.stop_token_ids or (constraint is not None and constraint.ended):
        reason = "stop"
    elif sequence.length == sequence.limit:
        reason = "length"
    ids, logprobs = most_probable(logits, normaliser, settings.logprobs)
    top = tuple(zip(ids.tolist(), logprobs.tolist()))
    logprob = float(logits[token]) - normaliser
    return Event(sequence.request_id, sequence.index, token, logprob, reason, top, prompt)
