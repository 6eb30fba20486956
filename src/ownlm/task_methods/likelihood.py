"""How probable given answers are after a prompt.

The engine is made to write an answer token by token and reports each token's log-probability: a prompt that several
answers share is computed once (its cache is shared), and models of every kind can do it, encoder-decoder models too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ownlm.engine.requests import Request, SamplingSettings
from ownlm.task_methods.requests import run_requests

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

PROMPTS_AT_ONCE = 32  # whose keys and values should be in the cache together


class Forced:
    """A constraint that lets exactly these tokens follow; see `ownlm.engine.requests.Constraint`.

    Args:
        ids: one at least. size: V of the model.
    """

    def __init__(self, ids: Sequence[int], size: int, at: int = 0) -> None:
        self._ids, self._size, self._at = ids, size, at

    def mask(self) -> npt.NDArray[np.bool_]:
        """[V]: the next one."""
        allowed = np.zeros(self._size, np.bool_)
        allowed[self._ids[self._at]] = True
        return allowed

    def accept(self, token: int) -> None:
        """One further."""
        self._at += 1

    @property
    def ended(self) -> bool:
        """Whether all of them were written."""
        return self._at == len(self._ids)

    def copy(self) -> Forced:
        """The same state for another sequence."""
        return Forced(self._ids, self._size, self._at)


def answer_logprobs(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """log p(answer | prompt), nats, for each answer of each prompt.

    Args:
        prompts: token ids. answers: of each prompt, token ids of its answers, one token at least.
    """
    found: list[list[float]] = [[0.0] * len(own) for own in answers]
    for first in range(0, len(prompts), PROMPTS_AT_ONCE):
        group = range(first, min(first + PROMPTS_AT_ONCE, len(prompts)))
        everything = [(n, k) for n in group for k in range(len(answers[n]))]
        # The first answer of each prompt fills the cache for the others.
        for places in ([p for p in everything if p[1] == 0], [p for p in everything if p[1]]):
            requests = [_request(loaded, prompts[n], answers[n][k]) for n, k in places]
            for (n, k), events in zip(places, run_requests(loaded, requests), strict=True):
                found[n][k] = float(sum(event.logprob for event in events))
    return found


def _request(loaded: LoadedModel, prompt: Sequence[int], answer: Sequence[int]) -> Request:
    settings = SamplingSettings(temperature=0, max_new_tokens=len(answer))
    return Request(prompt, settings, constraint=Forced(answer, loaded.engine.backend.vocab_size))
