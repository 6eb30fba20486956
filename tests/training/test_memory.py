"""The prediction of a step's memory: a plan that cannot fit is refused, with what would help."""

from __future__ import annotations

import pytest

from ownlm.console.errors import Refused
from ownlm.model.config import ModelConfig
from ownlm.model.sizes import config_for
from ownlm.training.memory_fit import Case, check_memory
from ownlm.training.plan import TrainPlan


def case(config: ModelConfig, rows: int, context: int) -> Case:
    plan = TrainPlan(
        max_steps=10, context=context, per_device_train_batch_size=rows, gradient_accumulation_steps=1, learning_rate=0.004,
        muon_learning_rate=0.02, weight_decay=0.01, max_grad_norm=0.0, warmup_steps=1, decay_steps=1, eval_steps=1,
        eval_rows=1, save_steps=1, save_total_limit=1, sample_steps=[], sample_prompt="", seed=0, dtype="float32",
        device="cpu", threads=1, flops_per_token=1.0, peak_flops=1.0,
    )  # fmt: skip
    return Case(config, plan, {"corpus": "corpus", "output": "run", "size": "auto"}, "124M")


def test_a_plan_that_cannot_fit_is_refused_with_its_parts():
    with pytest.raises(Refused, match=r"optimizer \d"):
        check_memory(case(config_for("124M", 50_257, 1024), 16, 1024), 2 * 10**9)
    check_memory(case(config_for("1M", 4_096, 256), 8, 256), 2 * 10**9)


def test_what_is_proposed_when_memory_is_short_changes_something():
    with pytest.raises(Refused) as refused:
        check_memory(case(config_for("1M", 4_096, 100_000), 1, 100_000), 2 * 10**8)
    assert "--per-device-train-batch-size" not in refused.value.do
    assert "--context" in refused.value.do
