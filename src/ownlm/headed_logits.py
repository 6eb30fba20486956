"""Logits of many rows by a model with a task head: rows of similar length together, padding left out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ownlm.console.errors import UsageError, did_you_mean
from ownlm.engine.scoring import BATCH_TOKENS
from ownlm.headed_inputs import Window
from ownlm.model.heads import HeadConfig

Logits = npt.NDArray[np.float64]


class HeadScorer(Protocol):
    """What is asked of a model with a head; see `model.heads.HeadModel`."""

    @property
    def head_config(self) -> HeadConfig:
        """What the head is for."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""

    @property
    def context(self) -> int:
        """Longest text in tokens, what stands around it included."""

    def __call__(self, ids_BT: Tensor, mask_BT: Tensor, types_BT: Tensor) -> Tensor:
        """Logits [B, L], [B, T, L] or [B, T, 2]."""


@torch.inference_mode()
def predict(scorer: HeadScorer, rows: Sequence[Window], device: str) -> list[Logits]:
    """Logits of each row without its padding; rows of similar length are computed together."""
    found: list[Logits] = [np.zeros(0)] * len(rows)
    pad = scorer.head_config.pad_token_id or 0
    for places in batches([len(row.ids) for row in rows]):
        length = max(len(rows[place].ids) for place in places)

        def filled(values: list[list[int]], value: int, length: int = length) -> Tensor:
            return torch.tensor([one + [value] * (length - len(one)) for one in values], device=device)

        ids_BT = filled([rows[place].ids for place in places], pad)
        mask_BT = filled([[1] * len(rows[place].ids) for place in places], 0).bool()
        types_BT = filled([rows[place].types for place in places], 0)
        logits = scorer(ids_BT, mask_BT, types_BT).double().cpu().numpy()
        for place, values in zip(places, logits):
            found[place] = values[: len(rows[place].ids)] if values.ndim == 2 else values
    return found


def softmax(logits: Logits) -> Logits:
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=-1, keepdims=True))


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows that are computed together: of similar length, `BATCH_TOKENS` with padding at most."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def label_scores(logits: Logits, head: HeadConfig) -> Logits:
    """What logits [texts, labels] say of each label: a probability, or of a model that gives a number, the number."""
    if head.problem_type == "regression":
        return logits
    if head.problem_type == "multi_label_classification" or len(head.labels) == 1:
        return np.asarray(1 / (1 + np.exp(-logits)))
    return softmax(logits)


def chosen_labels(labels: Sequence[str] | None, known: Sequence[str]) -> list[int]:
    """Places of labels among those of a model; None: all.

    Raises:
        UsageError: a label that the model does not have, or none at all.
    """
    if labels is None:
        return list(range(len(known)))
    if not labels:
        raise UsageError("no labels to choose from.", where="labels")
    for label in labels:
        if label not in known:
            raise UsageError(
                f'the model has no label "{label}".{did_you_mean(label, known)}',
                where="labels",
                why=f"Its head was trained for {', '.join(known[:20])}.",
                do="labels of the model, or a causal model, which can be asked for any",
            )
    return [known.index(label) for label in dict.fromkeys(labels)]
