"""Rows of a data set as batches that train a task head, and the loss of a batch.

Shapes: B rows, T tokens, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ownlm.console.errors import Refused, did_you_mean
from ownlm.headed_inputs import Encoded, HeadInputs, Window
from ownlm.model.heads import HeadConfig, HeadModel
from ownlm.tasks.items import Item, Labelled, Question, Tagged
from ownlm.tasks.problems import BadRow

NOT_TRAINED = -100  # as a target: no loss at this token
KIND_OF_TASK = {
    "classification": "sequence-classification",
    "sentiment": "sequence-classification",
    "ner": "token-classification",
    "qa": "question-answering",
}


@dataclass(frozen=True)
class HeadExample:
    """One row for the model.

    Attributes:
        where: `file:line` of the data.
        ids, types: of the row. Longer than the window where nobody asked to cut it.
        targets: [label] of a text; a label or NOT_TRAINED for each token; [start, end] of an answer, [0, 0] where
            the window does not hold it.
        trained: targets with a loss: labels of a text or of words; 1 for a window of a question.
        cut: words, or tokens of a text, that did not fit and were left out.
    """

    where: str
    ids: list[int]
    types: list[int]
    targets: list[int]
    trained: int
    cut: int = 0


def head_labels(items: Sequence[Item]) -> list[str]:
    """The labels of a data set in a fixed order: "O" first, then as the alphabet has them."""
    found = {item.label for item in items if isinstance(item, Labelled)}
    found |= {tag for item in items if isinstance(item, Tagged) for tag in item.tags}
    return sorted(found, key=lambda label: (label != "O", label))


def head_examples(
    item: Item, inputs: HeadInputs, head: HeadConfig, *, truncate: bool = False, stride: int | None = None
) -> list[HeadExample]:
    """The rows that train a head on an item: one, or for a question one for each window over its context.

    Args:
        truncate: cut a text or its words to the window; else the row is given as long as it is.
        stride: tokens by which windows over a context advance; None: half of what a window holds.

    Raises:
        BadRow: a label that the model does not have, an answer that is no part of the context.
    """
    match item:
        case Labelled() if head.kind == "sequence-classification":
            encoded = inputs.text(item.text)
            window, cut = _fitted(inputs, encoded, truncate)
            target = [_number(item.label, head.labels)]
            return [HeadExample(item.where, window.ids, window.types, target, 1, cut)]
        case Tagged() if head.kind == "token-classification":
            return [_tagged(item, inputs, head, truncate)]
        case Question() if head.kind == "question-answering":
            return _questions(item, inputs, stride)
    raise BadRow(
        f"{type(item).__name__.lower()} rows do not train a head for {head.kind}",
        "Another task, or another head.",
    )


def _fitted(inputs: HeadInputs, encoded: Encoded, truncate: bool) -> tuple[Window, int]:
    """(the row, how many tokens of the text were left out)."""
    tokens = encoded.last - encoded.first
    if truncate:
        window = inputs.cut(encoded)
        return window, tokens - window.stop
    return Window(encoded.ids, encoded.types, encoded.first, 0, tokens, 0, tokens), 0


def _number(label: str, labels: Sequence[str]) -> int:
    if label not in labels:
        known = ", ".join(labels[:20])
        raise BadRow(
            "a label that the model does not have",
            f"Labels of the model: {known}.{did_you_mean(label, labels)}",
            repr(label)[:60],
        )
    return labels.index(label)


def _tagged(item: Tagged, inputs: HeadInputs, head: HeadConfig, truncate: bool) -> HeadExample:
    """A word's first token has its label; all other tokens have none."""
    encoded = inputs.words(item.tokens)
    numbers = [_number(tag, head.labels) for tag in item.tags]
    window, _ = _fitted(inputs, encoded, truncate)
    targets = [NOT_TRAINED] * len(window.ids)
    trained = 0
    for word, token in inputs.first_tokens(encoded):
        if token < window.stop:
            targets[window.begin + token] = numbers[word]
            trained += 1
    cut = sum(token >= window.stop for _, token in inputs.first_tokens(encoded))
    return HeadExample(item.where, window.ids, window.types, targets, trained, cut)


def _questions(item: Question, inputs: HeadInputs, stride: int | None) -> list[HeadExample]:
    """One row a window; [0, 0], the row's first token, says "not here"."""
    encoded = inputs.pair(item.question, item.context)
    span: tuple[int, int] | None = None
    if item.answers:
        found = next((answer for answer in item.answers if answer.start is not None and answer.text), None)
        if found is None or found.start is None:
            raise BadRow(
                "the answer is no part of the context",
                "A head marks a part of the context; --as text trains answers in words.",
                repr(item.answers[0].text)[:60],
            )
        span = token_span(encoded, found.start, found.start + len(found.text))
        if span is None:
            raise BadRow(
                "no token holds the answer",
                "The tokenizer leaves these characters out; another model's may not.",
                repr(found.text)[:60],
            )
    rows = []
    for window in inputs.windows(encoded, stride, where=item.where):
        targets = [0, 0]
        if span is not None and window.start <= span[0] and span[1] < window.stop:
            targets = [window.begin + token - window.start for token in span]
        rows.append(HeadExample(item.where, window.ids, window.types, targets, 1))
    return rows


def token_span(encoded: Encoded, start: int, end: int) -> tuple[int, int] | None:
    """(first, last) of the tokens that hold characters of [start, end), counted from `encoded.first`; None: none."""
    inside = [token for token, (begin, stop) in enumerate(encoded.offsets) if begin < end and stop > start]
    return (inside[0], inside[-1]) if inside else None


@dataclass(frozen=True)
class HeadBatch:
    """Rows of one length.

    Attributes:
        ids_BT, mask_BT, types_BT: as `HeadModel.forward` takes them.
        targets: [B] labels, [B, T] labels of tokens or NOT_TRAINED, [B, 2] start and end.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    types_BT: Tensor
    targets: Tensor


def head_batch(
    examples: Sequence[HeadExample], head: HeadConfig, device: torch.device | str = "cpu"
) -> HeadBatch:
    """Rows as tensors, filled up on the right."""
    length = max(len(example.ids) for example in examples)

    def filled(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows], device=device)

    ids_BT = filled([example.ids for example in examples], head.pad_token_id or 0)
    mask_BT = filled([[1] * len(example.ids) for example in examples], 0).bool()
    types_BT = filled([example.types for example in examples], 0)
    rows = [example.targets for example in examples]
    if head.kind == "token-classification":
        targets = filled(rows, NOT_TRAINED)
    else:
        targets = torch.tensor(rows, device=device)
        targets = targets[:, 0] if head.kind == "sequence-classification" else targets
    return HeadBatch(ids_BT, mask_BT, types_BT, targets)


def head_loss(model: HeadModel, batch: HeadBatch) -> tuple[Tensor, int]:
    """(sum of the losses, how many they are): cross-entropy in nats of a label, a token's label, or a place.

    An answer's loss is the mean of those of its start and its end (Devlin et al. 2019, §4.2).

    Raises:
        Refused: a model whose labels do not exclude each other, or that gives a number.
    """
    if model.head_config.problem_type not in (None, "single_label_classification"):
        raise Refused(
            f"the model's problem_type is {model.head_config.problem_type}.",
            why="Only heads that give one of several labels are trained.",
            do="a new head on the model that it was made from",
        )
    logits = model(batch.ids_BT, batch.mask_BT, batch.types_BT)
    if model.kind == "question-answering":
        # Padding is no place where an answer can be.
        logits_BT2 = logits.masked_fill(~batch.mask_BT[:, :, None], torch.finfo(logits.dtype).min)
        total = F.cross_entropy(
            logits_BT2.transpose(1, 2).flatten(0, 1), batch.targets.flatten(), reduction="sum"
        )
        return total / 2, len(batch.targets)
    targets = batch.targets.flatten()
    total = F.cross_entropy(logits.flatten(0, -2), targets, reduction="sum", ignore_index=NOT_TRAINED)
    return total, int((targets != NOT_TRAINED).sum())
