"""The prediction of a step's memory: a plan that cannot fit is refused, with what would help."""

from __future__ import annotations

import pytest
import torch

from ownlm.console.errors import Refused
from ownlm.model.config import ModelConfig
from ownlm.model.sizes import config_for
from ownlm.model.transformer import Transformer
from ownlm.training.loss import head_loss
from ownlm.training.memory_fit import Case, check_memory
from ownlm.training.plan import TrainPlan


def case(config: ModelConfig, rows: int, context: int) -> Case:
    plan = TrainPlan(
        max_steps=10, context=context, per_device_train_batch_size=rows, gradient_accumulation_steps=1, learning_rate=0.004,
        muon_learning_rate=0.02, weight_decay=0.01, max_grad_norm=0.0, warmup_steps=1, decay_steps=1, eval_steps=1,
        eval_rows=1, save_steps=1, save_total_limit=1, sample_steps=[], sample_prompt="", seed=0, dtype="float32",
        device="cpu", threads=1, flops_per_token=1.0, peak_flops=1.0,
    )  # fmt: skip
    return Case(
        config,
        plan,
        {"corpus": "corpus", "output": "run", "size": "auto", "architecture": "qwen3", "set": []},
        "124M",
    )


def test_a_plan_that_cannot_fit_is_refused_with_its_parts():
    with pytest.raises(Refused, match=r"optimizer \d"):
        check_memory(case(config_for("124M", 50_257, 1024), 16, 1024), 2 * 10**9)
    check_memory(case(config_for("1M", 4_096, 256), 8, 256), 2 * 10**9)


def test_what_is_proposed_when_memory_is_short_changes_something():
    with pytest.raises(Refused) as refused:
        check_memory(case(config_for("1M", 4_096, 100_000), 1, 100_000), 2 * 10**8)
    assert "--per-device-train-batch-size" not in refused.value.do
    assert "--context" in refused.value.do


def test_checkpointing_keeps_less_and_changes_nothing():
    ids = torch.randint(0, 300, (2, 33), generator=torch.Generator().manual_seed(1))
    kept, gradients = {}, {}
    for checkpointing in (False, True):
        model = Transformer(config_for("1M", 300, 32))
        model.init_weights(1)
        torch.nn.init.normal_(model.lm_head.weight, std=0.1, generator=torch.Generator().manual_seed(2))
        model.gradient_checkpointing = checkpointing
        model.train()
        sizes = []
        count = lambda x, sizes=sizes: (sizes.append(x.numel() * x.element_size()), x)[1]  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            hidden = model.hidden(ids[:, :-1])
        kept[checkpointing] = sum(sizes)
        head_loss(hidden.flatten(0, 1), model.head_weight, ids[:, 1:].flatten()).backward()
        gradients[checkpointing] = [p.grad for p in model.parameters()]
    assert kept[True] < kept[False] / 3
    assert all(torch.equal(a, b) for a, b in zip(gradients[False], gradients[True]))
    assert any(float(g.abs().sum()) > 0 for g in gradients[True][1:5])
