"""The engine's backend for models that the library transformers computes.

Every sequence is computed alone, the prompt in one pass and then token by token, so what is promised is simple: a
sequence does not depend on the sequences beside it. The price is speed: sequences share no matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ownlm.console.errors import Refused
from ownlm.engine.backend import LoraWeights, Piece
from ownlm.engine.foreign_model import ForeignModel, State


class ForeignBackend:
    """A foreign model as the engine takes it; see `ownlm.engine.backend.Backend` and `KeepsOwnCache`.

    Args:
        model: keeps its dtype and device.
    """

    name = "transformers"
    block_bytes = 0
    promises = (
        "The same bits for a sequence whatever is generated beside it, on a CPU, on one machine with one torch and "
        "number of threads; not for a token of a prompt and the same token generated."
    )

    def __init__(self, model: ForeignModel) -> None:
        self.model: Any = model
        self.max_context = model.context
        self.device: torch.device | str = model.device
        self.vocab_size = model.vocab_size
        self.dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
        self.hidden_size = int(model.embedding.weight.shape[-1])
        self.weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self._states: dict[int, State] = {}
        self._prompt: tuple[bytes, State, Tensor] | None = (
            None  # the last one: sequences of a request share it
        )

    def longest(self, prompt_tokens: int) -> int:
        """Tokens of prompt and answer together at most."""
        return int(self.model.longest(prompt_tokens))

    def activation_bytes(self, tokens: int, outputs: int) -> int:
        """Unknown beyond the logits: the library's."""
        return 8 * outputs * self.vocab_size

    def reserve(self, blocks: int) -> None:
        """Nothing to do: each sequence's cache grows with it."""

    def copy_block(self, source: int, target: int) -> None:
        """Nothing to do: there are no blocks."""

    def release(self, sequence: int) -> None:
        """The sequence has ended: its state goes."""
        self._states.pop(sequence, None)

    @torch.inference_mode()
    def compute(self, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
        """Logits [O, V] of each piece; a piece is a whole prompt or one further token."""
        found = [self._rows(piece) for piece in pieces]
        if all(piece.start for piece in pieces):
            self._prompt = None
        return [rows.float().cpu().numpy() for rows in found]

    def _rows(self, piece: Piece) -> Tensor:
        ids = piece.ids.astype(np.int64)
        if piece.start:
            state = self._states[piece.sequence]
            further: Tensor = self.model.read(state, torch.from_numpy(ids).to(self.device))
            return further[None]
        state, last_V = self._started(ids)
        self._states[piece.sequence] = state.copied()
        if len(piece.outputs) < 2:
            return last_V[None][: len(piece.outputs)]
        hidden = self.model.hidden(torch.from_numpy(ids)[None].to(self.device))
        rows: Tensor = self.model.head(hidden[0, torch.from_numpy(piece.outputs.astype(np.int64))])
        return rows

    def _started(self, ids: npt.NDArray[np.int64]) -> tuple[State, Tensor]:
        """What the model keeps of a prompt, and the logits after it."""
        key = ids.tobytes()
        if self._prompt is None or self._prompt[0] != key:
            self._prompt = (key, *self.model.start(ids))
        return self._prompt[1], self._prompt[2]

    @torch.inference_mode()
    def hidden(self, pieces: Sequence[Piece]) -> list[npt.NDArray[np.float32]]:
        """Final hidden states [O, C] of each piece.

        Raises:
            Refused: the model makes logits of something else than one matrix, so they cannot be told from the rest.
        """
        if not getattr(self.model, "split", False):
            self._refuse("the states before its logits cannot be read.")
        found = []
        for piece in pieces:
            ids = torch.from_numpy(piece.ids.astype(np.int64))[None].to(self.device)
            found.append(self.model.hidden(ids)[0].float().cpu().numpy()[piece.outputs])
        return found

    def add_adapter(self, adapter: LoraWeights) -> int:
        """Refused: the names of its layers are not ours."""
        self._refuse("adapters beside the base need an architecture that is built in.")

    def remove_adapter(self, number: int) -> None:
        """Refused: there are none."""
        self._refuse("adapters beside the base need an architecture that is built in.")

    def _refuse(self, what: str) -> NoReturn:
        raise Refused(what, where=self.model.where, why="transformers computes this model.")
