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

import torch
from torch import Tensor, nn

from ownlm.corpus.batches import Source, TokenRows
from ownlm.model.transformer import Transformer
from ownlm.training.loss import head_loss
from ownlm.training.plan import TrainPlan

MOST_DOCUMENTS = 5
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
def forward_again(model: Transformer, batch: TokenRows, rows_at_once: int) -> Forward:
    """The forward pass of a batch in fp32, with every tensor looked at.

    Args:
        batch: all rows of a step.
    """
    found = Forward()
    device = next(model.parameters()).device
    head = "embedding.weight" if model.lm_head is None else "lm_head.weight"
    for first in range(0, len(batch.ids), rows_at_once):
        part = batch.part(first, first + rows_at_once)
        ids_BT, targets_BT = torch.from_numpy(part.ids).to(device), torch.from_numpy(part.targets).to(device)
        starts_BT = None if part.starts is None else torch.from_numpy(part.starts).to(device)
        with _watched(model, found), torch.autocast(device.type, enabled=False):
            hidden_BTC = model.hidden(ids_BT, starts_BT=starts_BT)
            if head not in found.order:  # the head is a product with this matrix, not the call of a module
                found.order.append(head)
                found.see(f"the weight {head}", model.head_weight, weight=True)
            step = max(1, CHECKED_LOGITS // model.config.vocab_size)
            for states in hidden_BTC.flatten(0, 1).split(step):
                found.see("the logits", model.head(states))
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
    names = [name for name in order if name in parameters]
    names += [name for name in parameters if name not in names]
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


def diagnose(
    model: Transformer,
    batches: Source,
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
    documents, more = batches.documents(step, worst, MOST_DOCUMENTS)
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
    model: Transformer, batches: Source, at_once: int, highest: float, last: Accepted | None
) -> tuple[str, str]:
    """(blame, cause) of a loss that is too high: bad weights are bad for the text of an earlier step too."""
    if last is None:
        return "unknown", "There is no earlier step to compare with."
    before = forward_again(model, batches.pairs(last.step - 1, 0, batches.rows), at_once).loss
    said = f"The text of step {last.step:,} had a loss of {last.loss:.4f} and has {before:.4f} now: "
    if before <= highest:
        return "text", said + "the weights are sound, the text of this step is what is unusual."
    return "weights", said + "the weights are the cause, not this text."
