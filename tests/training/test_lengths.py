"""How long a run is: minutes, tokens and epochs become a number of steps before the first one."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import ownlm
from ownlm.cli import main
from ownlm.console.errors import UsageError
from ownlm.corpus.shards import Corpus
from ownlm.training import setup
from ownlm.training.log import read_log
from ownlm.training.loop import Trainer
from ownlm.training.plan import TrainPlan


def assert_equal(first, second):
    """The weights of two runs, bit for bit."""
    a, b = (load_file(run / "model.safetensors") for run in (first, second))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_minutes_become_steps_before_step_1_and_the_printed_command_repeats_the_run(
    corpus, tmp_path, tiny, capsys, monkeypatch
):
    """Weights are compared bit for bit; run.json is read at the moment when training begins."""
    at_start = []
    train = Trainer.train

    def watched(trainer):
        at_start.append(json.loads((trainer.run / "run.json").read_text(encoding="utf-8")))
        return train(trainer)

    monkeypatch.setattr(Trainer, "train", watched)
    calibrated = setup.calibrated_steps

    def in_three_seconds(trainer, seconds):  # a busy machine must not make it a run of one step
        steps, per_step = calibrated(trainer, 3.0)
        return min(max(steps, 3), 20), per_step

    monkeypatch.setattr(setup, "calibrated_steps", in_three_seconds)
    options = [w for value in tiny["set"] for w in ("--set", value)]
    options += ["--size", "1M", "--context", "32", "--per-device-train-batch-size", "8", "--dtype", "float32"]
    output = tmp_path / "a run"
    code = main(["pretrain", str(corpus), "-o", str(output), "--minutes", "0.02", "--threads", "1", *options])
    said = capsys.readouterr().err
    assert code == 0
    steps = at_start[0]["plan"]["max_steps"]
    assert steps > 1
    assert (at_start[0]["settings"]["minutes"], at_start[0]["finished"]) == (0.02, False)
    assert sum(line["kind"] == "step" for line in read_log(output / "log.jsonl")) == steps
    command = next(line for line in said.splitlines() if line.startswith("the same bits again: "))
    words = shlex.split(command.partition(": ")[2])
    assert words[:3] == ["ownlm", "pretrain", str(corpus)]
    assert words[words.index("--max-steps") + 1] == str(steps)
    assert "--minutes" not in words
    assert main(words[1:]) == 0
    again = words[words.index("-o") + 1]
    assert again != str(output)
    assert_equal(output, type(output)(again))


def test_tokens_and_epochs_become_steps(corpus, tmp_path, tiny):
    """The steps are as many as hold the tokens, and as come nearest to the epochs."""
    a_step = tiny["context"] * tiny["per_device_train_batch_size"]
    for tokens, steps in (("1k", -(-1000 // a_step)), (str(a_step), 1)):
        done = ownlm.pretrain(corpus, output=tmp_path / tokens, tokens=tokens, **tiny)
        assert done.content["plan"]["max_steps"] == steps
        assert done.content["cost"]["tokens"] == steps * a_step >= (1000 if tokens == "1k" else int(tokens))
    done = ownlm.pretrain(corpus, output=tmp_path / "epochs", num_train_epochs=0.5, **tiny)
    text = Corpus.open(corpus).split("train").num_tokens
    assert done.content["plan"]["max_steps"] * a_step == pytest.approx(text / 2, abs=a_step)


@given(st.integers(1, 64), st.integers(30, 50_000))
def test_validation_takes_at_most_a_twentieth_by_the_plans_own_rule(rows, steps):
    """A validation row is a forward pass, a third of a training row; the first and last ones are counted."""
    plan = a_plan(per_device_train_batch_size=rows).with_steps(
        steps, warmup_steps=None, eval_steps=None, save_steps=None
    )
    validations = sum(step % plan.eval_steps == 0 for step in range(steps)) + 1
    share = validations * plan.eval_rows / 3 / (steps * rows)
    ends = (
        2 * plan.eval_rows / 3 / (steps * rows)
    )  # before the first step and after the last, whatever the length
    assert share <= 0.05 or share <= 0.04 + ends
    if steps * rows >= 2200:
        assert share <= 0.05


def a_plan(**changes):
    plan = dict(
        max_steps=0, context=32, per_device_train_batch_size=8, gradient_accumulation_steps=1, learning_rate=0.01,
        muon_learning_rate=0.01, weight_decay=0.0, max_grad_norm=0.0, warmup_steps=0, decay_steps=1, eval_steps=1,
        eval_rows=32, save_steps=1, save_total_limit=2, sample_steps=[], sample_prompt="", seed=0, dtype="float32",
        device="cpu", threads=1, flops_per_token=1.0, peak_flops=1.0,
    )  # fmt: skip
    return TrainPlan(**(plan | changes))


@pytest.mark.parametrize(
    "length", [{"minutes": 0}, {"num_train_epochs": 0}, {"num_train_epochs": -1}, {"tokens": "0"}]
)
def test_lengths_that_are_none_are_refused(corpus, tmp_path, length):
    name = next(iter(length)).replace("_", "-")
    with pytest.raises(UsageError, match=f"--{name}"):
        ownlm.pretrain(corpus, output=tmp_path / "x", **length)
    assert not (tmp_path / "x").exists()
