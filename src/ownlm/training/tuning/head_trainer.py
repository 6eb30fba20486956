"""Training of heads whose rows cannot be packed: encoders, and answers as places in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownlm.corpus.batches import TokenRows, permuted
from ownlm.headed_training import HeadBatch, HeadExample, head_batch, head_loss
from ownlm.seeds import derive
from ownlm.training.diagnosis import Diagnosis, bad_gradients
from ownlm.training.loop import Trainer

SORTED_TOGETHER = 50  # steps whose rows are sorted by length among themselves: little padding, still mixed


class HeadRows:
    """Rows of about the same length together; every epoch visits the groups in another order.

    Args:
        examples: the rows. rows: of a step. seed: of the order.
    """

    def __init__(self, examples: Sequence[HeadExample], rows: int, seed: int) -> None:
        self.examples, self.rows, self.seed = examples, min(rows, len(examples)), seed
        count = len(examples)
        order = [permuted(i, count, derive(seed, "row order")) for i in range(count)]
        self.groups: list[list[int]] = []
        span = self.rows * SORTED_TOGETHER
        for first in range(0, count, span):
            near = sorted(order[first : first + span], key=lambda index: len(examples[index].ids))
            self.groups += [near[i : i + self.rows] for i in range(0, len(near), self.rows)]

    def of_step(self, step: int) -> list[HeadExample]:
        """The rows of a step."""
        epoch, index = divmod(step, len(self.groups))
        key = derive(self.seed, "data order", epoch)
        return [self.examples[i] for i in self.groups[permuted(index, len(self.groups), key)]]

    def pairs(self, step: int, first: int, count: int) -> TokenRows:
        """Rows [first, first + count) of a step: what is read, and nothing that follows a token."""
        rows = self.of_step(step)[first : first + count]
        length = max((len(row.ids) for row in rows), default=1)
        ids = np.zeros((len(rows), length), np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = row.ids
        return TokenRows(ids, np.zeros_like(ids))

    def documents(self, step: int, worst_first: list[int], most: int) -> tuple[list[str], int]:
        """See `Source`."""
        rows = self.of_step(step)
        return [row.where for row in rows[:most]], max(0, len(rows) - most)


@dataclass
class HeadTrainer(Trainer):
    """A trainer whose batches are rows of a head; its losses are those of labels, or of answers' places."""

    model: Any
    batches: HeadRows
    held_out: Sequence[HeadExample] = field(default_factory=list)

    def _micro_batches(self) -> list[Any]:
        rows, size = self.batches.of_step(self.step), self.plan.per_device_train_batch_size
        return [self._batch(rows[i : i + size]) for i in range(0, len(rows), size)]

    def _batch(self, rows: Sequence[HeadExample]) -> HeadBatch:
        return head_batch(rows, self.model.head_config, self.plan.device)

    def _trained_in(self, batch: Any) -> tuple[int, int]:
        trained = len(batch.targets) if batch.targets.ndim == 1 else int((batch.targets >= 0).sum())
        return trained // (2 if self.model.kind == "question-answering" else 1), 0

    def loss_sum(self, batch: Any) -> Tensor:
        """Summed loss in nats of the targets."""
        with self.autocast():
            return head_loss(self.model, batch)[0]

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Mean loss over held-out rows."""
        self.model.eval()
        nll, count, size = 0.0, 0, self.plan.per_device_train_batch_size
        for first in range(0, len(self.held_out), size):
            batch = self._batch(self.held_out[first : first + size])
            nll, count = nll + float(self.loss_sum(batch)), count + self._trained_in(batch)[0]
        return {"step": self.step, "loss": nll / max(1, count)}

    @property
    def validates(self) -> bool:
        """See `Trainer`."""
        return bool(self.held_out)

    @property
    def choices(self) -> int:
        """Labels, or places that an answer can begin at."""
        if self.model.kind == "question-answering":
            return max(len(row.ids) for row in self.batches.examples)
        return int(self.model.head_config.outputs)

    def diagnosed(self, step: int, loss: float, highest: float, last: Any) -> Diagnosis:
        """What is known of a step in trouble: its gradients and its rows."""
        named, more = self.batches.documents(step, [], 5)
        beyond = not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters())
        cause = "A weight is not finite." if beyond else "The weights are finite."
        return Diagnosis(bad_gradients(self.model, []), cause, "unknown", beyond, named, more)
