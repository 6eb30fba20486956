"""The engine's second backend: models that the library transformers computes.

Every row is computed alone, the prompt in one pass and then token by token, so what is promised is simple: a
sequence does not depend on the sequences beside it. The price is speed: rows share no matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ownlm.engine.foreign_model import ForeignModel, State


@dataclass(frozen=True)
class Prompted:
    """What a model keeps of a prompt, and the logits [V] of what follows it."""

    state: State
    logits: npt.NDArray[np.float32]


@dataclass(eq=False)
class Row:
    """The place of one sequence, alone in its tile."""

    state: State

    @property
    def tile(self) -> Row:
        """Itself: nothing is decoded together."""
        return self

    @property
    def index(self) -> int:
        """The only row."""
        return 0


class ForeignBackend:
    """A foreign model as the engine takes it.

    Args:
        model: keeps its dtype and device.
    """

    def __init__(self, model: ForeignModel) -> None:
        self.model = model
        self.device, self.max_context = model.device, model.context
        self.dtype = model.embedding.weight.dtype

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return self.model.vocab_size

    def longest(self, prompt_tokens: int) -> int:
        """Tokens of prompt and answer together at most."""
        return self.model.longest(prompt_tokens)

    @torch.inference_mode()
    def prefill(self, ids: npt.NDArray[np.int64]) -> Prompted:
        """Compute a prompt [tokens] alone."""
        state, logits = self.model.start(ids)
        return Prompted(state, _numpy(logits))

    @torch.inference_mode()
    def allocate(self, prefilled: Prompted) -> Row:
        """A sequence goes on from a copy of the prompt's state: several may start from one prompt."""
        return Row(prefilled.state.copied())

    def release(self, row: Row) -> None:
        """Nothing to give back: the state goes with its sequence."""

    @torch.inference_mode()
    def decode(self, tile: Row, tokens: dict[int, tuple[int, int]]) -> npt.NDArray[np.float32]:
        """One token further for the row: logits [1, V]."""
        token = torch.tensor([tokens[0][0]], device=self.device)
        return _numpy(self.model.read(tile.state, token))[None]


def _numpy(logits: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = logits.float().cpu().numpy()
    return found
