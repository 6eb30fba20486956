"""Low-rank adapters beside the base, on torch: several at once, each for the rows of its own sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ownlm.console.errors import UsageError
from ownlm.engine.backend import LoraWeights
from ownlm.engine.torch_products import padded_rows, product


class Adapters:
    """The adapters of a model, and which rows of the present call they change.

    Args:
        model: whose linear layers they belong to.
        device: where they are kept, in fp32.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._shapes = {
            name: (part.out_features, part.in_features)
            for name, part in model.named_modules()
            if isinstance(part, nn.Linear)
        }
        self._device = device
        self._known: dict[int, dict[str, tuple[Tensor, Tensor]]] = {}
        self._last = 0
        self._rows: list[tuple[int, Tensor, int]] = []

    def add(self, adapter: LoraWeights) -> int:
        """Keep an adapter; gives its number, from 1.

        Raises:
            UsageError: a layer that the model does not have, or matrices of another shape.
        """
        held = {
            name: (
                torch.from_numpy(np.array(down)).to(self._device),
                torch.from_numpy(np.array(up)).to(self._device),
            )
            for name, down, up in adapter.fitting(self._shapes)
        }
        self._last += 1
        self._known[self._last] = held
        return self._last

    def remove(self, number: int) -> None:
        """Forget an adapter.

        Raises:
            UsageError: there is no such adapter.
        """
        if self._known.pop(number, None) is None:
            raise UsageError(f"there is no adapter {number}.", where="adapter")

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def select(self, numbers: Sequence[int], counts: Sequence[int]) -> None:
        """The adapters of a call's pieces, which have `counts` tokens each."""
        of_row = np.repeat(np.array(numbers), np.array(counts))
        self._rows = []
        for number in sorted(set(numbers) - {0}):
            rows = np.flatnonzero(of_row == number)
            filled = np.pad(rows, (0, padded_rows(len(rows)) - len(rows)))
            self._rows.append((number, torch.from_numpy(filled).to(self._device), len(rows)))

    def added(self, name: str, x_NK: Tensor, y_NO: Tensor) -> Tensor:
        """y with what the adapters add to it in the layer `name`."""
        for number, rows, count in self._rows:
            if name in self._known[number]:
                down, up = self._known[number][name]
                y_NO[rows[:count]] += product(product(x_NK[rows], down), up)[:count]
        return y_NO
