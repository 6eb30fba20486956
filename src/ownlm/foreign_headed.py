"""Models with a task head that are not built in (BART, XLM-RoBERTa, ELECTRA, …), run by transformers."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ownlm.console.errors import Refused
from ownlm.model.head_families import HeadKind
from ownlm.model.heads import HeadConfig

if TYPE_CHECKING:
    from pathlib import Path

    from ownlm.corpus.tokenizer import Tokenizer


class ForeignHead:
    """A model with a head as `ownlm.headed.HeadedModel` takes it.

    Args:
        inner: the model of transformers, in eval mode.
        kind: of the head.
        context: tokens of a row, what stands around the text included.
        tokenizer: gives the padding token where the config names none.
        where: what messages name.
    """

    def __init__(self, inner: Any, kind: str, context: int, tokenizer: Tokenizer, where: Path) -> None:
        self.inner, self.context, self.where = inner, context, where
        config = inner.config
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_id  # it refuses batches without one
        labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
        self.head_config = HeadConfig(
            cast(HeadKind, kind), labels, config.problem_type, 0.0, config.pad_token_id
        )
        embedding = inner.get_input_embeddings().weight
        self.vocab_size, self.device = len(embedding), embedding.device
        taken = inspect.signature(inner.forward).parameters
        # Some families name the argument and have no table for it.
        self.takes_types = "token_type_ids" in taken and (getattr(config, "type_vocab_size", 0) or 0) > 1

    def __call__(self, ids_BT: Tensor, mask_BT: Tensor, types_BT: Tensor) -> Tensor:
        """Logits [B, L], [B, T, L] or [B, T, 2] in fp32.

        Raises:
            Refused: a class that gives something else.
        """
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT.long()}
        if self.takes_types:
            inputs["token_type_ids"] = types_BT
        found = self.inner(**{name: values.to(self.device) for name, values in inputs.items()})
        if self.head_config.kind != "question-answering":
            return cast(Tensor, found.logits).float()
        if getattr(found, "start_logits", None) is None:
            raise Refused(
                f"{type(self.inner).__name__} gives no start and end of an answer for each token.",
                where=self.where,
                do="another model for question answering",
            )
        return torch.stack([found.start_logits, found.end_logits], dim=-1).float()
