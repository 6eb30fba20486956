"""What is wrong with a step whose loss or gradients are not what they should be: which tensor, which text.

Everything is computed again on the plain model in fp32, once, whatever computed the step itself. Only steps that are
in trouble pay for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ownlm.corpus.batches import Batches
from ownlm.corpus.shards import Split
from ownlm.model.transformer import Transformer
from ownlm.training.loss import head_loss
from ownlm.training.plan import TrainPlan

MOST_DOCUMENTS = 5
SNIPPET = 60  # characters
SNIPPET_TOKENS = 90  # more than enough for them in any tokenizer that is worth its name
CHECKED_LOGITS = 2**22  # of the head that exist at once


class Accepted(NamedTuple):
    """A step whose update was made: its number, counted from 1, and its loss in nats a token."""

    step: int
    loss: float


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        tensor: a sentence about the first bad tensor in the order of the forward pass.
        cause: a sentence: whether the weights or the text are to blame, as far as it can be told.
        blame: "weights", "text", "precision" or "unknown".
        beyond_repair: a weight is not finite, and no later step can make it so.
        documents: those of the batch with the worst row first, at most `MOST_DOCUMENTS`: place, number, text.
        more: how many documents are not listed.
    """

    tensor: str
    cause: str
    blame: str
    beyond_repair: bool
    documents: list[str]
    more: int

    def batch(self) -> str:
        """The documents as one line."""
        return "; ".join(self.documents) + (f"; and {self.more:,} more" if self.more else "")


@dataclass
class Forward:
    """A batch computed again.

    Attributes:
        first_bad: the first tensor that is not finite, in words; "" when there is none.
        bad_weight: whether that tensor is a weight.
        order: names of the parameters in the order of the forward pass.
        losses: mean loss of each row in nats.
    """

    first_bad: str = ""
    bad_weight: bool = False
    order: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Of all rows together."""
        return sum(self.losses) / max(len(self.losses), 1)

    def see(self, name: str, tensor: Tensor, weight: bool = False) -> None:
        """Remember the tensor if it is the first that is not finite."""
        if not self.first_bad and not bool(torch.isfinite(tensor).all()):
            self.first_bad, self.bad_weight = described(name, tensor), weight


def described(name: str, tensor: Tensor) -> str:
    """'NAME (3 of 4,096 values are nan or inf)'."""
    bad = int((~torch.isfinite(tensor)).sum())
    return f"{name} ({bad:,} of {tensor.numel():,} values are nan or inf)"


@torch.no_grad()
def forward_again(model: Transformer, batch: tuple[np.ndarray, np.ndarray], rows_at_once: int) -> Forward:
    """The forward pass of a batch in fp32, with every tensor looked at.

    Args:
        batch: token ids and the targets after each of them, int64 [rows, T]; a negative target is not trained.
    """
    found = Forward()
    device = next(model.parameters()).device
    head = "embedding.weight" if model.lm_head is None else "lm_head.weight"
    for first in range(0, len(batch[0]), rows_at_once):
        ids_BT, targets_BT = (
            torch.from_numpy(part[first : first + rows_at_once]).to(device) for part in batch
        )
        with _watched(model, found), torch.autocast(device.type, enabled=False):
            hidden_BTC = model.hidden(ids_BT)
            if head not in found.order:  # the head is a product with this matrix, not the call of a module
                found.order.append(head)
                found.see(f"the weight {head}", model.head_weight, weight=True)
            step = max(1, CHECKED_LOGITS // model.config.vocab_size)
            for part in hidden_BTC.flatten(0, 1).split(step):
                found.see("the logits", model.head(part))
        for hidden_TC, targets_T, trained_T in zip(hidden_BTC, targets_BT, targets_BT >= 0):
            total = float(head_loss(hidden_TC[trained_T], model.head_weight, targets_T[trained_T]))
            found.losses.append(total / max(1, int(trained_T.sum())))
    return found


@contextmanager
def _watched(model: Transformer, found: Forward) -> Iterator[None]:
    """Inside it, weights, inputs and outputs of every module of the plain model are looked at as it is called."""
    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(_before(name, found)))
            handles.append(module.register_forward_hook(_after(name, found)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(name: str, found: Forward) -> Any:
    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for tensor in inputs[:1]:
            if torch.is_tensor(tensor) and tensor.is_floating_point():
                found.see(f"the input of {name}", tensor)
        for short, parameter in module.named_parameters(recurse=False):
            if f"{name}.{short}" not in found.order:
                found.order.append(f"{name}.{short}")
                found.see(f"the weight {name}.{short}", parameter, weight=True)

    return look


def _after(name: str, found: Forward) -> Any:
    return lambda module, inputs, output: found.see(f"the output of {name}", output)


def bad_gradients(model: Transformer, order: list[str]) -> str:
    """A sentence about the gradients: the first that is not finite, else the largest.

    Args:
        order: names of the parameters in the order of the forward pass.
    """
    parameters = dict(model.named_parameters())
    names = [*order, *(name for name in parameters if name not in order)]
    gradients = {name: grad for name in names if (grad := parameters[name].grad) is not None}
    bad = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
    if bad:
        first = described(f"the gradient of {bad[0]}", gradients[bad[0]])
        if len(bad) == 1:
            return f"{first}, the only one of {len(gradients):,} gradients"
        return f"{first}; {len(bad):,} of {len(gradients):,} gradients are bad, the backward pass met {bad[-1]} first"
    norms = {name: float(gradient.double().norm()) for name, gradient in gradients.items()}
    if not norms:
        return "there are no gradients"
    largest = max(norms, key=norms.__getitem__)
    whole = math.sqrt(sum(norm * norm for norm in norms.values()))
    return f"every tensor is finite; the largest gradient is that of {largest} (norm {norms[largest]:.3g} of {whole:.3g})"


def documents_of(
    batches: Batches, step: int, ids: np.ndarray, worst_first: list[int]
) -> tuple[list[str], int]:
    """(documents of a step as words, how many are not listed).

    Args:
        step: 0-based.
        ids: of its tokens, int64 [rows, T].
        worst_first: row numbers in the order in which their documents are listed.
    """
    split, starts = batches.split, batches.starts(step, 0, len(ids))
    begins = split.document_starts
    seen: dict[int, np.ndarray] = {}
    for row in worst_first:
        # The row's first document is the last one that begins there or before.
        first = int(np.searchsorted(begins, starts[row], side="right")) - 1
        after = int(np.searchsorted(begins, starts[row] + ids.shape[1], side="left"))
        for document in range(first, after):
            begin = max(0, int(begins[document]) - starts[row])
            end = int(begins[document + 1]) - starts[row] if document + 1 < len(begins) else ids.shape[1]
            seen.setdefault(document, ids[row, begin : min(end, begin + SNIPPET_TOKENS)])
    listed = [_document(split, document, part) for document, part in list(seen.items())[:MOST_DOCUMENTS]]
    return listed, len(seen) - len(listed)


def _document(split: Split, document: int, ids: np.ndarray) -> str:
    """'texts/fox.txt:12 (document 34: "The quick brown …")': the text is what the batch holds of it."""
    tokenizer = split.corpus.tokenizer
    text = tokenizer.decode([token for token in ids.tolist() if token != tokenizer.eos_id])
    text = " ".join(text.strip("\ufffd").split())  # a row may begin and end inside a character
    shown = text[:SNIPPET].rstrip() + (" …" if len(text) > SNIPPET else "")
    return f'{split.where(document)} (document {document:,}: "{shown}")'


def diagnose(
    model: Transformer,
    batches: Batches,
    plan: TrainPlan,
    step: int,
    loss: float,
    highest: float,
    last: Accepted | None,
) -> Diagnosis:
    """Look for what is wrong with the batch of a step; weights and gradients are those that it left.

    Args:
        step: 0-based.
        loss: as the step computed it.
        highest: the highest loss that was still normal.
        last: the step before it that was accepted, or None.
    """
    batch, at_once = batches.pairs(step, 0, batches.rows), plan.per_device_train_batch_size
    again = forward_again(model, batch, at_once)
    if again.first_bad:
        tensor, blame = f"the first bad tensor is {again.first_bad}", "weights"
        cause = "The weights are the cause, whatever the text."
        if not again.bad_weight:
            cause = "The weights before it are finite, but so large that fp32 does not hold the result."
    else:
        tensor = bad_gradients(model, again.order)
        if not loss <= highest and again.loss <= highest:
            blame, cause = _not_again(plan.dtype, again.loss)
        elif not loss <= highest:
            blame, cause = _weights_or_text(model, batches, at_once, highest, last)
        else:
            blame, cause = "unknown", "The loss is normal, so it began in the backward pass."
    worst = sorted(range(batches.rows), key=lambda row: _badness(again.losses[row]), reverse=True)
    documents, more = documents_of(batches, step, batch[0], worst)
    return Diagnosis(tensor, cause, blame, again.bad_weight, documents, more)


def _badness(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _not_again(dtype: str, loss: float) -> tuple[str, str]:
    """(blame, cause) when the loss is normal once it is computed again."""
    if dtype != "float32":
        return (
            "precision",
            f"In fp32 the loss of the same batch is {loss:.4f}: the products in {dtype} are the cause.",
        )
    return (
        "unknown",
        f"Computed again, the loss of the same batch is {loss:.4f}: the machine or its memory may be at fault.",
    )


def _weights_or_text(
    model: Transformer, batches: Batches, at_once: int, highest: float, last: Accepted | None
) -> tuple[str, str]:
    """(blame, cause) of a loss that is too high: bad weights are bad for the text of an earlier step too."""
    if last is None:
        return "unknown", "There is no earlier step to compare with."
    before = forward_again(model, batches.pairs(last.step - 1, 0, batches.rows), at_once).loss
    said = f"The text of step {last.step:,} had a loss of {last.loss:.4f} and has {before:.4f} now: "
    if before <= highest:
        return "text", said + "the weights are sound, the text of this step is what is unusual."
    return "weights", said + "the weights are the cause, not this text."
