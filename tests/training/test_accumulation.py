"""A step in micro-batches is the step of the one large batch, however unequally the trained tokens are spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import TINY
from tests.training.test_lengths import a_plan

from ownlm.corpus.batches import NOT_TRAINED, Batches, TokenRows
from ownlm.corpus.shards import Corpus
from ownlm.model.config import ModelConfig
from ownlm.training import setup
from ownlm.training.loop import Trainer
from ownlm.training.parallel import Processes

ROWS, CONTEXT = 8, 32
# Sums in another order in fp32. Were each micro-batch divided by its own count, gradients would differ by their own size.
OF_THE_LARGEST = 1e-5


class Masked(Batches):
    """Rows of which 0, 1, 2, 4, … 32 targets are trained, at their end."""

    def pairs(self, step: int, first: int, count: int) -> TokenRows:
        rows = super().pairs(step, first, count)
        targets = rows.targets.copy()
        for row in range(count):
            trained = min(CONTEXT, 2 ** (first + row) // 2)
            targets[row, : CONTEXT - trained] = NOT_TRAINED
        return TokenRows(rows.ids, targets)


def trainer(corpus: Path, accumulation: int, kind: type[Batches]) -> Trainer:
    opened = Corpus.open(corpus)
    plan = a_plan(
        per_device_train_batch_size=ROWS // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=10,
        context=CONTEXT,
    )
    size = {"architecture": "qwen3", "set": TINY["set"]}
    config: ModelConfig = setup.model_config(size, opened.tokenizer.vocab_size, "1M", CONTEXT)
    made = setup.build_trainer(opened, config, plan, corpus, None, Processes())
    made.batches = kind(opened.split("train"), CONTEXT, ROWS, 0)
    return made


def step(
    corpus: Path, accumulation: int, kind: type[Batches]
) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """(what a step returns, the gradients that it was made with)."""
    made = trainer(corpus, accumulation, kind)
    gradients: dict[str, torch.Tensor] = {}
    made.optimizer.step = lambda _: gradients.update(  # type: ignore[method-assign]
        {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}
    )
    return made.train_step(), gradients


@pytest.mark.parametrize("kind", [Batches, Masked])
@pytest.mark.parametrize("accumulation", [2, 8])
def test_gradients_and_loss_are_those_of_the_one_large_batch(corpus, accumulation, kind):
    values, gradients = step(corpus, accumulation, kind)
    expected_values, expected = step(corpus, 1, kind)
    assert gradients.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in gradients.items():
        assert float((gradient - expected[name]).abs().max()) <= OF_THE_LARGEST * largest, name
    for name in ("loss", "bits_per_byte"):
        assert values[name] == pytest.approx(expected_values[name], rel=1e-6)


def test_the_loss_is_a_mean_over_trained_tokens_alone(corpus):
    """Of the eight rows 0 + 1 + 2 + 4 + 8 + 16 + 32 + 32 tokens are trained, and as many bytes as these have."""
    made = trainer(corpus, 4, Masked)
    ids, targets = (torch.from_numpy(part) for part in made.batches.pairs(0, 0, ROWS)[:2])
    trained = targets != NOT_TRAINED
    assert int(trained.sum()) == 95
    with torch.no_grad():
        logits = made.model.head(made.model.hidden(ids))
    nll = torch.nn.functional.cross_entropy(logits[trained].double(), targets[trained], reduction="sum")
    values = made.train_step()
    assert values["loss"] == pytest.approx(float(nll) / 95, rel=1e-5)
    size = int(made.byte_lengths[targets[trained]].sum())
    assert values["bits_per_byte"] == pytest.approx(float(nll) / np.log(2) / size, rel=1e-5)
