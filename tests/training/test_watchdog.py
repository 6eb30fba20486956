"""The watchdog: what must not reach the weights does not, its message is true, and its commands work."""

from __future__ import annotations

import json
import math
import random
import shlex

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.training.real_runs import assert_same_run, assert_same_tensors

import ownlm
from ownlm.cli import main
from ownlm.console.errors import OwnlmError
from ownlm.corpus.batches import Batches, shifted
from ownlm.corpus.shards import Corpus
from ownlm.training import loop
from ownlm.training.checkpoint import WholeModel, checkpoints
from ownlm.training.diagnosis import Accepted, Diagnosis, diagnose, forward_again
from ownlm.training.log import read_log
from ownlm.training.loop import Trainer
from ownlm.training.optimizer import Optimizer
from ownlm.training.plan import TrainPlan
from ownlm.training.watchdog import HISTORY, MOST_IN_A_ROW, Diverged, Watchdog, highest_normal_loss

# ---- the rule


def test_the_rule_on_losses_whose_answer_is_known():
    calm = [3.0 + 0.01 * (-1) ** n for n in range(HISTORY)]
    assert highest_normal_loss(calm, 8.0) == pytest.approx(3.01 + 1, abs=0.02)  # one nat
    noisy = [3.0 + draw for draw in np.random.default_rng(0).normal(0, 0.4, HISTORY)]
    assert highest_normal_loss(noisy, 8.0) > 3 + 6 * 0.4
    two_kinds = [1.0 + 0.01 * n for n in range(44)] + [3.0] * 6
    assert highest_normal_loss(random.Random(0).sample(two_kinds, 50), 8.0) > 6
    falling = [7.0 - 0.08 * n + 0.01 * (-1) ** n for n in range(HISTORY)]
    assert highest_normal_loss(falling, 8.0) < 6.1  # the fall is no noise
    one_odd = [*calm[:-2], 9.0, 9.0]
    assert highest_normal_loss(one_odd, 8.0) < 4.1  # what was odd twice does not become normal
    assert highest_normal_loss([], 8.0) == math.inf
    assert highest_normal_loss([3.0] * 19, 8.0) == 16
    assert highest_normal_loss([9.0] * 19, 8.0) == 18
    assert highest_normal_loss([0.8], math.log(2)) == pytest.approx(3.8)  # two labels


@pytest.mark.parametrize(("rows", "steps", "seed"), [(8, 60, 0), (1, 150, 0), (1, 150, 1)])
def test_no_false_alarm_in_small_noisy_runs_of_text_in_two_languages(
    corpus, tmp_path, tiny, rows, steps, seed
):
    settings = tiny | {"per_device_train_batch_size": rows, "seed": seed, "max_steps": steps}
    ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    losses = [line["loss"] for line in read_log(tmp_path / "run/log.jsonl") if line["kind"] == "step"]
    assert len(losses) == steps
    if rows == 1:
        assert max(np.diff(losses[20:])) > 0.5, "the run is not noisy"


def test_ten_steps_in_a_row_are_skipped_and_the_next_one_stops(run, corpus, monkeypatch):
    nothing = Diagnosis("nothing is bad", "", "unknown", False, [], 0)
    monkeypatch.setattr(loop, "diagnose", lambda *_: nothing)
    trainer = trainer_of(run, corpus)
    dog = Watchdog("skip")
    for _ in range(2):
        for number in range(MOST_IN_A_ROW):
            assert dog.look(trainer, math.nan, 1.0), number
        assert dog.look(trainer, 3.0, 1.0) is None
    assert dog.skipped == 2 * MOST_IN_A_ROW
    for _ in range(MOST_IN_A_ROW):
        assert dog.look(trainer, 3.0, math.inf)
    with pytest.raises(Diverged, match="after 10 skipped steps in a row"):
        dog.look(trainer, math.nan, 1.0)
    with pytest.raises(Diverged):
        Watchdog("stop").look(trainer, math.nan, 1.0)


# ---- the diagnosis


def trainer_of(run, corpus, rows=8):
    """A trainer of a finished run's weights, before a step."""
    model = ownlm.load(run).model
    plan = TrainPlan.from_json(json.loads((run / "run.json").read_text())["plan"])
    batches = Batches(Corpus.open(corpus).split("train"), plan.context, rows, 0)
    return Trainer(model, None, plan, batches, torch.zeros(400), run, WholeModel(model, {}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        (
            "blocks.1.attention.q_proj.weight",
            math.nan,
            "the weight blocks.1.attention.q_proj.weight (1 of 4,096",
        ),
        ("embedding.weight", math.inf, "the weight embedding.weight (1 of 25,600"),
        ("norm.weight", -math.inf, "the weight norm.weight (1 of 64"),
        ("lm_head.weight", math.nan, "the weight lm_head.weight (1 of 25,600"),
        ("blocks.0.mlp.up_proj.weight", 3e38, "the output of blocks.0.mlp.up_proj ("),
    ],
)
def test_the_first_bad_tensor_of_the_forward_pass_is_named(run, corpus, name, value, found):
    trainer = trainer_of(run, corpus)
    weight = dict(trainer.model.named_parameters())[name]
    with torch.no_grad():
        weight.view(-1)[7] = value
        if math.isfinite(value):
            weight.fill_(value)
    rows = trainer.batches.step(3)
    again = forward_again(trainer.model, shifted(rows), 3)
    assert again.first_bad.startswith(found)
    assert again.bad_weight is not math.isfinite(value)
    assert len(again.losses) == len(rows)
    assert not trainer.model._forward_hooks and not trainer.model.norm._forward_hooks


def test_a_sound_forward_pass_has_the_loss_of_the_model_and_every_parameter_in_its_order(run, corpus):
    trainer = trainer_of(run, corpus)
    rows = trainer.batches.step(3)
    again = forward_again(trainer.model, shifted(rows), 3)
    assert again.first_bad == ""
    batch = torch.from_numpy(rows)
    logits = trainer.model(batch[:, :-1]).transpose(1, 2)
    each = torch.nn.functional.cross_entropy(logits, batch[:, 1:], reduction="none").mean(1)
    torch.testing.assert_close(torch.tensor(again.losses), each.detach(), atol=1e-4, rtol=1e-4)
    assert sorted(again.order) == sorted(name for name, _ in trainer.model.named_parameters())
    order = [again.order.index(f"blocks.0.{name}.weight") for name in
             ("attention_norm", "attention.q_proj", "attention.o_proj", "mlp_norm", "mlp.down_proj")]  # fmt: skip
    assert order == sorted(order)
    assert again.order[0] == "embedding.weight" and again.order[-1] == "lm_head.weight"


def test_the_text_or_the_weights_are_to_blame(run, corpus):
    trainer = trainer_of(run, corpus)
    usual = forward_again(trainer.model, trainer.batches.pairs(3, 0, 8), 8).loss
    look = (trainer.model, trainer.batches, trainer.plan, 4)
    step = trainer.batches.step
    odd = np.random.default_rng(0).integers(100, 400, (8, 33))
    trainer.batches.step = lambda number, *rows: odd if number == 4 else step(number, *rows)
    loss = forward_again(trainer.model, trainer.batches.pairs(4, 0, 8), 8).loss
    assert loss > usual + 2
    found = diagnose(*look, loss, usual + 1, Accepted(4, usual))
    assert (found.blame, found.beyond_repair) == ("text", False)
    assert f"{usual:.4f} and has {usual:.4f} now" in found.cause
    trainer.batches.step = step
    found = diagnose(*look, loss, usual + 1, Accepted(4, usual))
    assert found.blame == "unknown" and "Computed again" in found.cause
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(30)
    loss = forward_again(trainer.model, trainer.batches.pairs(4, 0, 8), 8).loss
    assert diagnose(*look, loss, usual + 1, Accepted(4, usual)).blame == "weights"
    assert diagnose(*look, loss, usual + 1, None).blame == "unknown"


def test_the_documents_of_a_batch_are_those_its_tokens_come_from(text_folder, tmp_path):
    ownlm.prepare([str(text_folder)], output=tmp_path / "c", vocab_size=400, documents="line")
    split = Corpus.open(tmp_path / "c").split("train")
    batches = Batches(split, 32, 4, 0)
    whole, eos = split.read(0, split.num_tokens), split.corpus.tokenizer.eos_id
    of_token = np.cumsum(whole == eos) - 1
    for step in range(12):
        rows = batches.step(step)
        starts = batches.starts(step, 0, 4)
        assert all(np.array_equal(rows[i], whole[s : s + 33]) for i, s in enumerate(starts))
        order = [2, 0, 3, 1]
        expected = list(dict.fromkeys(d for i in order for d in of_token[starts[i] : starts[i] + 32]))
        listed, more = batches.documents(step, order, 5)
        assert len(listed) == min(5, len(expected)) and len(listed) + more == len(expected)
        for document, words in zip(expected, listed):
            text = " ".join(split.document_text(int(document)).split())
            snippet = words.split('"')[1].removesuffix(" …")
            assert words.startswith(f"{split.where(int(document))} (document {document:,}: ")
            assert (snippet in text and 0 < len(snippet) <= 60) or not snippet


# ---- whole runs


def poison(monkeypatch, step, change):
    """Before the step's update, `change(trainer)` is called once its gradients are there."""
    norm = loop.gradient_norm
    train_step = Trainer.train_step
    now = {}

    def watched(trainer):
        now["trainer"] = trainer
        return train_step(trainer)

    def changed(model):
        if now["trainer"].step + 1 == step and now["trainer"].watchdog:
            change(now["trainer"])
        return norm(model)

    monkeypatch.setattr(Trainer, "train_step", watched)
    monkeypatch.setattr(loop, "gradient_norm", changed)


def nan_gradient(trainer):
    trainer.model.blocks[1].mlp.down_proj.weight.grad[3, 4] = math.nan


def bad_weight(trainer):
    trainer.model.blocks[1].attention.q_proj.weight.data[3, 4] = math.inf


def finite(path):
    return all(bool(torch.isfinite(tensor).all()) for tensor in load_file(path).values())


def test_an_infinite_weight_stops_the_run_before_it_is_saved(corpus, tmp_path, tiny, monkeypatch, capsys):
    poison(monkeypatch, 4, bad_weight)  # seen by the loss of step 5
    for way in ("stop", "skip"):  # no later step could mend it
        run = tmp_path / way
        with pytest.raises(OwnlmError) as stopped:
            ownlm.pretrain(corpus, output=run, max_steps=9, save_steps=3, on_divergence=way, **tiny)
        assert stopped.value.exit_code == 1
        said = str(stopped.value)
        assert "training diverged at step 5 of 9: the loss is nan; it was " in said
        logged = read_log(run / "log.jsonl")
        before = [line["loss"] for line in logged if line["kind"] == "step"][-1]
        assert float(said.split("it was ")[1].split(" at step 4")[0]) == pytest.approx(before, abs=1e-4)
        assert "The first bad tensor is the weight blocks.1.attention.q_proj.weight (" in said
        assert "fox.txt:1 (document " in said
        assert [path.name for path in checkpoints(run)] == ["step-3"]
        assert f"last good checkpoint is {run / 'checkpoints/step-3'}" in said
        assert all(finite(path / "model.safetensors") for path in checkpoints(run))
        assert not (run / "model.safetensors").exists()
        assert (logged[-1]["kind"], logged[-1]["step"], logged[-1]["loss"]) == ("diverged", 5, None)
        json.loads((run / "log.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)
        # From an older checkpoint the same would happen again.
        assert "--resume" not in stopped.value.do
    monkeypatch.undo()
    command = shlex.split(stopped.value.do.splitlines()[-1].removeprefix(" or: "))
    assert main(command[1:]) == 0, capsys.readouterr().err
    after = json.loads((tmp_path / "skip-2/run.json").read_text())
    assert after["plan"]["max_steps"] == 6 and after["plan"]["learning_rate"] == 0.002
    assert after["settings"]["from_"] == str(run / "checkpoints/step-3")


def test_a_weight_that_goes_bad_in_memory_leaves_the_checkpoint_of_the_same_step(
    corpus, tmp_path, tiny, monkeypatch
):
    settings = tiny | {"max_steps": 6, "save_steps": 4}
    ownlm.pretrain(corpus, output=tmp_path / "whole", **settings)
    train_step = Trainer.train_step

    def flips(trainer):
        if trainer.step == 4:
            bad_weight(trainer)
        return train_step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", flips)
        with pytest.raises(OwnlmError, match="the loss is nan") as stopped:
            ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    assert f"last good checkpoint is {tmp_path / 'run/checkpoints/step-4'}" in str(stopped.value)
    command = shlex.split(stopped.value.do.splitlines()[0])
    assert command[-1] == "--resume" and main(command[1:]) == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_learning_rate_that_diverges_stops_and_its_checkpoint_is_set_aside(corpus, tmp_path, tiny):
    settings = tiny | {"learning_rate": 1e6, "max_steps": 30, "save_steps": 1}
    with pytest.raises(OwnlmError, match="training diverged at step 2 of 30: the loss is") as stopped:
        ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    assert "the weights are the cause, not this text" in str(stopped.value)
    assert "no good checkpoint" in str(stopped.value)
    assert checkpoints(tmp_path / "run") == []
    assert (tmp_path / "run/checkpoints/step-1-diverged/model.safetensors").exists()
    assert "--learning-rate 500000.0 --muon-learning-rate 0.01" in stopped.value.do
    assert "--on-divergence skip" not in stopped.value.do


@pytest.mark.parametrize(
    ("step", "reason"),
    [(3, "the weights are not finite after its update"), (10, "no sample can be drawn after its update")],
)
def test_an_update_that_spoils_the_weights_is_not_saved(corpus, tmp_path, tiny, monkeypatch, step, reason):
    """Nor is it sampled from; the last step has no step after it that would see it."""
    update, train_step = Optimizer.step, Trainer.train_step
    now = {}

    def spoils(optimizer, factor):
        update(optimizer, factor)
        if now["step"] == step:
            optimizer.matrices["blocks.0.mlp.up_proj.weight"].data[0, 0] = math.nan

    monkeypatch.setattr(
        Trainer, "train_step", lambda self: now.update(step=self.step + 1) or train_step(self)
    )
    monkeypatch.setattr(Optimizer, "step", spoils)
    with pytest.raises(OwnlmError, match=f"step {step} of 10: {reason}") as stopped:
        ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=10, save_steps=1, **tiny)
    assert "the weight blocks.0.mlp.up_proj.weight (1 of" in str(stopped.value)
    assert checkpoints(tmp_path / "run")[-1].name == f"step-{step - 1}"
    assert not (tmp_path / "run/model.safetensors").exists()


def test_a_skipped_step_is_an_update_left_out(corpus, tmp_path, tiny, monkeypatch, capsys):
    settings = tiny | {"max_steps": 8, "save_steps": 4, "max_grad_norm": 0.5}
    with monkeypatch.context() as patch:
        update, train_step = Optimizer.step, Trainer.train_step
        now = {}
        patch.setattr(Trainer, "train_step", lambda self: now.update(step=self.step + 1) or train_step(self))
        patch.setattr(Optimizer, "step", lambda self, factor: now["step"] == 5 or update(self, factor))
        ownlm.pretrain(corpus, output=tmp_path / "without", **settings)
    ownlm.pretrain(corpus, output=tmp_path / "all", **settings)
    capsys.readouterr()
    poison(monkeypatch, 5, nan_gradient)
    with pytest.raises(OwnlmError, match="the norm of the gradients is nan, the loss is ") as stopped:
        ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    assert (
        "The gradient of blocks.1.mlp.down_proj.weight (1 of 8,192 values are nan or inf), the only"
        in str(stopped.value)
    )
    first = stopped.value.do.splitlines()[0]
    assert main(shlex.split(first)[1:]) == 0  # --resume --on-divergence skip
    assert first.endswith("--resume --on-divergence skip")
    said = capsys.readouterr().err
    assert "step 5 is skipped: the norm of the gradients is nan" in said
    assert "1 of 8 steps were skipped" in said
    for name in ("model.safetensors", "checkpoints/step-8/optimizer.safetensors"):
        assert_same_tensors(tmp_path / "run" / name, tmp_path / "without" / name)
    changed = load_file(tmp_path / "all/model.safetensors")["model.norm.weight"]
    assert not torch.equal(load_file(tmp_path / "run/model.safetensors")["model.norm.weight"], changed)
    content = json.loads((tmp_path / "run/run.json").read_text())
    assert content["cost"]["skipped_steps"] == 1 and content["settings"]["on_divergence"] == "skip"
    logged = read_log(tmp_path / "run/log.jsonl")
    assert [line["step"] for line in logged if line["kind"] == "step"] == [1, 2, 3, 4, 6, 7, 8]
    assert [line["step"] for line in logged if line["kind"] == "skipped"] == [5]
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(content["repeat"])[1:]]) == 0
    assert_same_tensors(tmp_path / "run/model.safetensors", tmp_path / "run-again/model.safetensors")


def test_going_on_after_skipped_steps_and_before_a_jump_equals_never_having_stopped(
    corpus, tmp_path, tiny, monkeypatch
):
    """The jump of step 27 is one only beside the losses before the checkpoint of step 24, which hold a skipped step."""
    settings = tiny | {"max_steps": 30, "save_steps": 8, "on_divergence": "skip"}
    look, train_step = Watchdog.look, Trainer.train_step

    def raised(dog, trainer, loss, norm):
        more = {23: math.nan, 27: 6.5}.get(trainer.step + 1, 0.0)
        return look(dog, trainer, loss + more, norm)

    def breaks(trainer):
        if trainer.step == 25:
            raise KeyboardInterrupt
        return train_step(trainer)

    monkeypatch.setattr(Watchdog, "look", raised)
    ownlm.pretrain(corpus, output=tmp_path / "whole", **settings)
    assert [line["step"] for line in read_log(tmp_path / "whole/log.jsonl") if line["kind"] == "skipped"] == [
        23,
        27,
    ]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", breaks)
        with pytest.raises(ownlm.OwnlmError, match="broken off"):
            ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    run = ownlm.pretrain(corpus, output=tmp_path / "run", resume=True)
    assert run.content["cost"]["skipped_steps"] == 2
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_skipped_steps_push_no_good_checkpoint_out(corpus, tmp_path, tiny, monkeypatch):
    def spoils(trainer):
        trainer.model.lm_head.weight.data.mul_(1e3)

    poison(monkeypatch, 22, spoils)
    settings = tiny | {"max_steps": 60, "save_steps": 1, "on_divergence": "skip"}
    with pytest.raises(OwnlmError, match="step 33 of 60: .* after 10 skipped steps in a row") as stopped:
        ownlm.pretrain(corpus, output=tmp_path / "run", **settings)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-21"]
    assert f"{tmp_path / 'run/checkpoints/step-21'}." in str(stopped.value)
    assert (tmp_path / "run/checkpoints/step-22-diverged").is_dir()
