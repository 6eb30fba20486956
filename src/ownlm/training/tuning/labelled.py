"""Rows that train a task head, as texts whose tokens have labels; and a headed model in the shape of a language model.

A causal model with a head reads as a language model does, and says labels where that says tokens. So its rows are
packed like texts, and its gradients come from the same kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ownlm.corpus.batches import NOT_TRAINED
from ownlm.headed_inputs import HeadInputs
from ownlm.headed_training import HeadExample, head_examples
from ownlm.model.config import ModelConfig
from ownlm.model.heads import HeadConfig, HeadModel
from ownlm.model.transformer import Transformer
from ownlm.tasks.items import Item
from ownlm.tasks.problems import BadRow, Problems
from ownlm.training.tuning.texts import Counted, Overlong, Text, too_long


def examples_of(
    items: Sequence[Item],
    inputs: HeadInputs,
    head: HeadConfig,
    problems: Problems,
    *,
    max_length: int,
    overlong: Overlong,
) -> tuple[list[HeadExample], list[Item], Counted]:
    """(rows for the head, the items they came from, what was counted); questions give a row for each window.

    Raises:
        Refused: rows longer than `max_length` with "error".
    """
    found: list[HeadExample] = []
    kept: list[Item] = []
    counted = Counted()
    for item in items:
        try:
            rows = head_examples(item, inputs, head, truncate=overlong == "truncate")
        except BadRow as bad:
            problems.bad(item.where, bad)
            continue
        counted.rows += 1
        counted.lengths.append(max(len(row.ids) + row.cut for row in rows))
        if any(len(row.ids) > max_length for row in rows):
            counted.dropped += 1
            continue
        counted.cut += any(row.cut for row in rows)
        found += [row for row in rows if row.trained]
        kept.append(item)
    if counted.dropped and overlong == "error":
        raise too_long(counted, max_length)
    return found, kept, counted


def labelled_text(example: HeadExample, head: HeadConfig) -> Text:
    """A row of labels as a text: the label of a whole text is learnt at its last token."""
    ids = np.array(example.ids, np.int32)
    if head.kind == "token-classification":
        return Text(example.where, ids, np.array(example.targets, np.int32))
    targets = np.full(len(ids), NOT_TRAINED, np.int32)
    targets[-1] = example.targets[0]
    return Text(example.where, ids, targets)


def packs(model: HeadModel) -> bool:
    """Whether a headed model can be trained as a language model of labels: causal, one matrix, a label a token."""
    return (
        isinstance(model.backbone, Transformer)
        and model.kind != "question-answering"
        and model.head.dense is None
        and model.head_config.problem_type in (None, "single_label_classification")
    )


class LabelModel(nn.Module):
    """A headed causal model in the shape of a language model: labels stand in the place of the vocabulary.

    A bias of the head stays what it is: for labels of tokens the hidden states say as much.

    Args:
        headed: see `packs`.
    """

    def __init__(self, headed: HeadModel) -> None:
        super().__init__()
        assert isinstance(headed.backbone, Transformer)
        self.headed = headed
        if self.lm_head.bias is not None:
            self.lm_head.bias.requires_grad_(False)
        self.config: ModelConfig = dataclasses.replace(
            headed.backbone.config, vocab_size=headed.head_config.outputs, tie_word_embeddings=False
        )

    @property
    def lm_head(self) -> nn.Linear:
        """The matrix of labels."""
        return self.headed.head.output

    @property
    def body(self) -> Transformer:
        """What gives the hidden states."""
        assert isinstance(self.headed.backbone, Transformer)
        return self.headed.backbone

    @property
    def head_weight(self) -> Tensor:
        """[L, C]."""
        return self.lm_head.weight

    @property
    def head_matrix(self) -> Tensor:
        """The same: it is never in int8."""
        return self.head_weight

    def hidden(self, ids_BT: Tensor, *, starts_BT: Tensor | None = None) -> Tensor:
        """As `Transformer.hidden`."""
        return self.body.hidden(ids_BT, starts_BT=starts_BT)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., L] in fp32 of final hidden states [..., C]."""
        return nn.functional.linear(hidden, self.head_weight).float()

    def __getattr__(self, name: str) -> Any:
        # What the kernels take of a language model: its embeddings, blocks and norm.
        if name in ("embedding", "position_embedding", "blocks", "norm"):
            return getattr(self.body, name)
        return super().__getattr__(name)

    def _rotary_for(self, length: int, positions_BT: Tensor | None, device: torch.device) -> Any:
        return self.body._rotary_for(length, positions_BT, device)
