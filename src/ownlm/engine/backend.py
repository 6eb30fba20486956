"""What the engine asks of whatever computes the logits; `TorchBackend` is the first, `ForeignBackend` the second."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch


class Place(Protocol):
    """The place of one running sequence: its row in a tile, rows that are decoded together."""

    @property
    def tile(self) -> Any:
        """Sequences with the same tile are decoded in one call."""

    @property
    def index(self) -> int:
        """The row."""


class Prompted(Protocol):
    """A prompt that was computed; `logits` [V] are of what follows it."""

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [V]."""


class Backend(Protocol):
    """The arithmetic behind the engine. V vocabulary, B rows of a tile.

    `model` is what `ownlm.engine.scoring` and the evaluation take.
    """

    model: Any
    device: torch.device
    max_context: int

    @property
    def vocab_size(self) -> int:
        """V; token ids lie below."""

    def longest(self, prompt_tokens: int) -> int:
        """Tokens of prompt and answer together at most, for a prompt of this length."""

    def prefill(self, ids: npt.NDArray[np.int64]) -> Any:
        """Compute a prompt [tokens]; gives a `Prompted`."""

    def allocate(self, prefilled: Any) -> Place:
        """A place for one sequence that goes on from a prompt; a prompt may get several."""

    def release(self, row: Any) -> None:
        """The sequence has ended."""

    def decode(self, tile: Any, tokens: dict[int, tuple[int, int]]) -> npt.NDArray[np.float32]:
        """One token further: row -> (the last token, its position) gives logits [B, V]."""
