"""Memory: the prediction, the micro-batch that follows from it, refusals, and what a run says that ran out of it."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Refused, UsageError, is_out_of_memory
from ownlm.model.config import ModelConfig
from ownlm.model.sizes import config_for
from ownlm.model.transformer import Transformer
from ownlm.training import draft, memory
from ownlm.training.loop import Trainer
from ownlm.training.loss import head_loss
from ownlm.training.memory_fit import Case, check_memory, split_to_fit
from ownlm.training.memory_paths import Step, layer_activations
from ownlm.training.plan import TrainPlan
from ownlm.training.setup import in_architecture


def case(config: ModelConfig, rows: int, context: int, **settings: int) -> Case:
    plan = TrainPlan(
        max_steps=10, context=context, per_device_train_batch_size=rows, gradient_accumulation_steps=1, learning_rate=0.004,
        muon_learning_rate=0.02, weight_decay=0.01, max_grad_norm=0.0, warmup_steps=1, decay_steps=1, eval_steps=1,
        eval_rows=1, save_steps=1, save_total_limit=1, sample_steps=[], sample_prompt="", seed=0, dtype="float32",
        device="cpu", threads=1, flops_per_token=1.0, peak_flops=1.0,
    )  # fmt: skip
    return Case(
        config,
        plan,
        {
            "corpus": "corpus",
            "output": "run",
            "size": "auto",
            "architecture": "qwen3",
            "set": [],
            "per_device_train_batch_size": None,
            "gradient_accumulation_steps": None,
            **settings,
        },
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


LAYOUTS = [("qwen3", {}), ("qwen3", {"num_key_value_heads": 1}), ("qwen3", {"sliding_window": 16}), ("llama", {}),
           ("olmo2", {}), ("phi3", {}), ("gpt2", {})]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("architecture", "changes"), LAYOUTS)
def test_predicted_activations_are_those_that_autograd_keeps(architecture, changes, dtype):
    one = dataclasses.replace(config_for("1M", 200, 64), num_hidden_layers=1)
    one = one if architecture == "qwen3" else in_architecture(one, architecture)
    one = dataclasses.replace(one, **changes)
    two = dataclasses.replace(one, num_hidden_layers=2)
    kept = kept_bytes(two, dtype, rows=4) - kept_bytes(one, dtype, rows=4)
    assert layer_activations(Step(one, 4, 64, dtype=dtype)) == pytest.approx(kept, rel=0.02)


def kept_bytes(config: ModelConfig, dtype: str, rows: int) -> int:
    """Bytes of all that autograd keeps of a forward pass beside the weights and their copies."""
    model = Transformer(config)
    model.init_weights(0)
    model.train()
    weights = {p.shape for p in model.parameters()} | {p.T.shape for p in model.parameters() if p.ndim == 2}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape not in weights:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), autocast:
        # Held until all is counted: memory that is freed would be counted under the address of another.
        hidden = model.hidden(torch.zeros(rows, 64, dtype=torch.int64))
    assert hidden.requires_grad
    return sum(size for size, _ in kept.values())


def test_the_rows_of_a_step_are_split_into_the_fewest_micro_batches_that_fit():
    asked = case(config_for("3M", 4_096, 256), 24, 256)
    enough = asked.needed / 0.7
    assert split_to_fit(asked, int(enough) + 1) is asked.plan
    sizes = {}
    for rows in (12, 8, 6, 4, 3, 2, 1):
        sizes[rows] = asked.changed(
            per_device_train_batch_size=rows, gradient_accumulation_steps=24 // rows
        ).needed
    split = split_to_fit(asked, int(sizes[6] / 0.7) + 1)
    assert (split.per_device_train_batch_size, split.gradient_accumulation_steps) == (6, 4)
    assert split_to_fit(asked, int(sizes[6] / 0.7) - 1).per_device_train_batch_size == 4
    assert split_to_fit(asked, 10**6) is asked.plan  # nothing fits: the refusal says so
    given = case(config_for("3M", 4_096, 256), 24, 256, per_device_train_batch_size=24)
    assert split_to_fit(given, int(sizes[6] / 0.7) + 1) is given.plan


def test_the_micro_batch_follows_from_free_memory_and_is_recorded(corpus, tmp_path, tiny, monkeypatch):
    settings = {key: value for key, value in tiny.items() if key != "per_device_train_batch_size"}
    plain = ownlm.pretrain(corpus, output=tmp_path / "plain", max_steps=1, dry_run=True, **settings)
    needed = plain.content["preflight"]["memory"]["needed"]
    for module in (draft, memory):
        monkeypatch.setattr(module, "available_memory", lambda: int(needed * 1.3), raising=False)
    run = ownlm.pretrain(corpus, output=tmp_path / "run", max_steps=2, **settings)
    plan, before = run.content["plan"], plain.content["plan"]
    assert plan["gradient_accumulation_steps"] > 1 == before["gradient_accumulation_steps"]
    assert plan["tokens_per_step"] == before["tokens_per_step"]
    assert run.content["preflight"]["memory"]["needed"] <= 0.7 * needed * 1.3
    assert f"--gradient-accumulation-steps {plan['gradient_accumulation_steps']}" in run.content["repeat"]


def test_the_refusal_lists_the_three_cheapest_changes_with_their_saving():
    asked = case(config_for("124M", 50_257, 1024), 16, 1024, per_device_train_batch_size=16)
    with pytest.raises(Refused) as refused:
        check_memory(asked, 8 * 10**9)
    lines = [line for line in refused.value.why.splitlines() if "saves" in line]
    assert len(lines) == 3
    pieces = next(line for line in lines if "--per-device-train-batch-size" in line)
    size, count = map(int, re.findall(r"--\S+ (\d+)", pieces))
    assert size * count == 16
    smaller = asked.changed(per_device_train_batch_size=size, gradient_accumulation_steps=count)
    assert smaller.needed <= 0.7 * 8 * 10**9
    saved, left = re.search(r"saves ([\d.]+) GB, ([\d.]+) GB remain", pieces).groups()
    assert float(left) == pytest.approx(smaller.needed / 1e9, abs=0.05)
    assert float(saved) == pytest.approx((asked.needed - smaller.needed) / 1e9, abs=0.05)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_failed_allocations_are_recognised(error, counts):
    assert is_out_of_memory(error) is counts


OPTIONS = ["--size", "1M", "--set", "num_hidden_layers=2", "--set", "hidden_size=128", "--context", "64", "--dtype",
           "float32", "--threads", "1", "--max-steps", "4", "--save-steps", "2"]  # fmt: skip
STEP_ROWS = 64


@pytest.fixture
def stopped(corpus, tmp_path, monkeypatch):
    """A run of 4 steps that was broken off after step 2, and the command that began it."""
    train_step = Trainer.train_step

    def ends(trainer):
        if trainer.step == 2:
            raise KeyboardInterrupt
        return train_step(trainer)

    begin = [
        "pretrain",
        str(corpus),
        "-o",
        str(tmp_path / "run"),
        *OPTIONS,
        "--per-device-train-batch-size",
        str(STEP_ROWS),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", ends)
        assert main(begin) == 130
    return tmp_path / "run"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of the address space")
def test_running_out_of_memory_says_what_would_need_less_and_how_to_go_on(corpus, stopped, tmp_path):
    words = tmp_path / "words"
    code = out_of_memory(["pretrain", str(corpus), "-o", str(stopped), "--resume"], words, room=100 * 10**6)
    said = words.read_text()
    assert code == 1, said
    size = r"[\d.]+ [MG]B"
    assert re.search(
        f"out of memory at step 3 of 4: {size} were predicted, {size} were allocated when another {size} could not",
        said,
    )
    assert f"{stopped}/checkpoints/step-2 is kept" in said
    assert said.count(" saves ") == 3
    go_on = re.search("Try: ownlm (pretrain .* --resume .*)", said)[1]
    assert main(shlex.split(go_on)) == 0
    content = ownlm.training.run_folder.read_run(stopped)
    assert content["finished"]
    assert content["resumed"][0]["step"] == 2


def out_of_memory(arguments: list[str], words: Path, room: int) -> int:
    """Run a command that gets `room` more bytes of address space when its model is built; its exit code."""
    process = multiprocessing.get_context("spawn").Process(
        target=_in_little_room, args=(arguments, words, room)
    )
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def _in_little_room(arguments: list[str], words: Path, room: int) -> None:
    import resource

    from ownlm.training import session

    os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT), 2)
    begin = session.begin

    def limited(*args):
        trainer = begin(*args)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room,) * 2)
        return trainer

    session.begin = limited
    sys.exit(main(arguments))


def test_a_run_goes_on_in_other_micro_batches_of_the_same_rows(corpus, stopped, tmp_path):
    whole = ownlm.pretrain(
        corpus, output=tmp_path / "whole", size="1M", set=["num_hidden_layers=2", "hidden_size=128"], context=64,
        dtype="float32", threads=1, max_steps=4, per_device_train_batch_size=STEP_ROWS,
    )  # fmt: skip
    resume = ["pretrain", str(corpus), "-o", str(stopped), "--resume", "--gradient-checkpointing"]
    with pytest.raises(UsageError, match=f"the {STEP_ROWS} rows"):
        ownlm.pretrain(corpus, output=stopped, resume=True, per_device_train_batch_size=STEP_ROWS - 1)
    pieces = ["--per-device-train-batch-size", str(STEP_ROWS // 4)]
    assert main([*resume, *pieces]) == 0
    run = ownlm.training.run_folder.read_run(stopped)
    assert run["resumed"] == [
        {
            "step": 2, "world_size": 1, "per_device_train_batch_size": STEP_ROWS // 4, "gradient_accumulation_steps": 4,
            "gradient_checkpointing": True,
        }
    ]  # fmt: skip
    ours, theirs = ownlm.load(stopped).model, ownlm.load(whole).model
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-3, msg=name)
