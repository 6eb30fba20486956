"""A task head on a model's body: a label for a text, a label for each token, or where an answer begins and ends.

Shapes: B texts, T tokens, C width, L labels.

The heads are those of transformers for each family (`head_families.py`), so a folder opens in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlm.console.errors import UsageError
from ownlm.model.config import ModelConfig
from ownlm.model.encoder import Encoder, EncoderConfig
from ownlm.model.head_families import HeadForm, HeadKind, head_form
from ownlm.model.layers import Linear
from ownlm.model.transformer import Transformer

PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": F.relu}


@dataclass(frozen=True)
class HeadConfig:
    """What the head of a model is for.

    Attributes:
        kind: see `head_families.DOES`.
        labels: names of the labels in the order of the logits. Question answering has two logits a token, start and
            end, and its labels have no meaning.
        problem_type: one of `PROBLEMS`; None: one label of several, or a number where there is one label.
        dropout: share of the head's inputs that are zeroed in training.
        pad_token_id: padding; a causal model reads its label from the last token that is another one. None: from the
            last token of the mask.
    """

    kind: HeadKind
    labels: tuple[str, ...]
    problem_type: str | None = None
    dropout: float = 0.0
    pad_token_id: int | None = None

    @property
    def outputs(self) -> int:
        """Logits of a text or token."""
        return 2 if self.kind == "question-answering" else len(self.labels)


class Head(nn.Module):
    """Hidden states to logits: a matrix, in some families with another one and an activation before it."""

    def __init__(self, width: int, config: HeadConfig, form: HeadForm) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.dense = Linear(width, width) if form.dense else None
        self.output = Linear(width, config.outputs, bias=form.bias)
        self.activation = form.activation

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., L]; dropout in training, from torch's global random state."""
        if self.dense is not None:
            if self.activation == "tanh":  # RoBERTa's has dropout on both matrices
                x = F.dropout(x, self.dropout, self.training)
            x = _ACTIVATIONS[self.activation](self.dense(x))
        logits: Tensor = self.output(F.dropout(x, self.dropout, self.training))
        return logits


class HeadModel(nn.Module):
    """A body and its head.

    Args:
        config: of the body. A causal body has no head of tokens here, whatever `tie_word_embeddings` says of the
            model that it comes from.
        head: what the head is for.
    """

    def __init__(self, config: ModelConfig | EncoderConfig, head: HeadConfig) -> None:
        super().__init__()
        self.config, self.head_config = config, head
        form = head_form(config.architecture, head.kind)
        self.backbone: Transformer | Encoder
        if isinstance(config, EncoderConfig):
            self.backbone = Encoder(body_config(config, form.pooler))
        else:
            self.backbone = Transformer(dataclasses.replace(config, tie_word_embeddings=True))
        self.head = Head(config.hidden_size, head, form)
        self.uses_pooler = form.pooler

    @property
    def kind(self) -> HeadKind:
        """What the head is for."""
        return self.head_config.kind

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels in the order of the logits."""
        return self.head_config.labels

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    @property
    def context(self) -> int:
        """Longest text in tokens, what stands around it included."""
        if isinstance(self.config, EncoderConfig):
            return self.config.context
        return self.config.max_position_embeddings

    @property
    def pad_token_id(self) -> int:
        """Fills the rows of a batch up; 0 where the config names none (then the mask alone tells)."""
        return self.head_config.pad_token_id or 0

    def num_parameters(self) -> int:
        """All weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None
    ) -> Tensor:
        """Logits in fp32: [B, L] of texts, [B, T, L] of tokens, [B, T, 2] of an answer's start and end.

        Args:
            ids_BT: token ids, T at most `context`.
            mask_BT: true where a token stands, false where a row was padded on the right; None: nowhere padded.
            types_BT: 0 in the first text of a pair, 1 in the second; None: 0 everywhere. Causal models take none.

        Raises:
            UsageError: rows longer than the window.
        """
        if ids_BT.shape[1] > self.context:
            raise UsageError(
                f"{ids_BT.shape[1]:,} tokens; the model reads at most {self.context:,} at once.",
                where="context",
            )
        if isinstance(self.backbone, Encoder):
            hidden_BTC = self.backbone.hidden(ids_BT, mask_BT, types_BT)
        else:
            hidden_BTC = self.backbone.hidden(ids_BT)  # padding on the right is seen by padding alone
        if self.kind != "sequence-classification":
            return self.head(hidden_BTC).float()
        return self.head(self._summary(hidden_BTC, ids_BT, mask_BT)).float()

    def _summary(self, hidden_BTC: Tensor, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        """What stands for the whole text, [B, C]."""
        if isinstance(self.backbone, Encoder):
            return self.backbone.pooled(hidden_BTC) if self.uses_pooler else hidden_BTC[:, 0]
        pad = self.head_config.pad_token_id
        if pad is not None:
            text_BT = ids_BT != pad
        else:
            text_BT = torch.ones_like(ids_BT, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
        places = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        last_B = (places * text_BT).argmax(dim=1)
        return hidden_BTC[torch.arange(len(ids_BT), device=ids_BT.device), last_B]

    def init_head(self, seed: int, names: set[str]) -> None:
        """Fill new weights from one random stream: matrices normal with `initializer_range`, biases zero.

        Args:
            names: of the parameters that are new.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name not in names:
                continue
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                drawn = torch.randn(parameter.shape, generator=generator) * self.config.initializer_range
                parameter.data.copy_(drawn)


def body_config(config: EncoderConfig, pooler: bool) -> EncoderConfig:
    """An encoder's config without the heads that it was trained with."""
    return dataclasses.replace(config, head=False, next_sentence=False, pooler=config.pooler or pooler)
