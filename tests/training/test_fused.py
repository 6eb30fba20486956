"""The fused path against autograd: the same loss and gradients, for every layout, instruction set and number of threads."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from ownlm.kernels.library import LEVELS, at_level, has_tiles, level, library
from ownlm.model.config import ModelConfig
from ownlm.model.sizes import config_for
from ownlm.model.transformer import Transformer
from ownlm.training.fused import FusedGradients, why_not
from ownlm.training.loss import head_loss
from ownlm.training.setup import in_architecture

pytestmark = pytest.mark.skipif(library() is None, reason="the native kernels were not built here")

SMALL = dataclasses.replace(config_for("1M", 300, 128), num_hidden_layers=2)
LAYOUTS = {
    **{
        name: in_architecture(SMALL, name)
        for name in ("qwen2", "llama", "mistral", "phi3", "smollm3", "gpt2")
    },
    "qwen3": SMALL,
    "groups and a window": dataclasses.replace(
        SMALL, num_attention_heads=4, num_key_value_heads=2, sliding_window=20
    ),
    "no width of a tile": dataclasses.replace(SMALL, hidden_size=120, intermediate_size=200, head_dim=20),
}


def filled(config: ModelConfig) -> Transformer:
    model = Transformer(config)
    model.init_weights(1)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        spread = 0.05 if parameter.ndim == 2 else 0.1
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


def batch(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 300, (rows, length + 1), generator=torch.Generator().manual_seed(7))
    targets = ids[:, 1:].clone()
    targets[0, :5] = -100
    return ids[:, :-1], targets


def by_autograd(config, ids, targets, dtype, divisor, starts=None):
    model = filled(config)
    bf16 = dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
        hidden = model.hidden(ids, starts_BT=starts)
    loss = head_loss(hidden.flatten(0, 1), model.head_weight, targets.flatten(), dtype)
    (loss / divisor).backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}


def by_kernels(config, ids, targets, dtype, divisor, starts=None):
    model = filled(config)
    loss = FusedGradients(model, dtype).loss_sum(ids, targets, divisor, starts)
    return float(loss), {name: p.grad for name, p in model.named_parameters()}


def worst(found, wanted) -> tuple[float, str]:
    """The largest relative distance of a gradient, and whose it is."""
    return max((float((found[n] - wanted[n]).norm() / wanted[n].norm()), n) for n in wanted)


@pytest.mark.parametrize("shape", [(3, 40), (2, 64)], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_fp32_gradients_are_autograds(name, shape):
    config = LAYOUTS[name]
    assert why_not(config, "cpu", False) is None
    ids, targets = batch(*shape)
    loss, gradients = by_kernels(config, ids, targets, torch.float32, 75)
    their_loss, theirs = by_autograd(config, ids, targets, torch.float32, 75)
    assert loss == pytest.approx(their_loss, rel=1e-6)
    assert worst(gradients, theirs)[0] < 1e-5, worst(gradients, theirs)


@pytest.mark.parametrize("shape", [(3, 40), (2, 64), (2, 288)], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_bf16_gradients_are_as_near_to_fp32_as_autocasts(name, shape):
    """Both round to 8 bits, at other places: neither may be much further from fp32 than the other."""
    config = dataclasses.replace(LAYOUTS[name], max_position_embeddings=512)
    ids, targets = batch(*shape)
    _, exact = by_autograd(config, ids, targets, torch.float32, 75)
    loss, gradients = by_kernels(config, ids, targets, torch.bfloat16, 75)
    their_loss, theirs = by_autograd(config, ids, targets, torch.bfloat16, 75)
    assert loss == pytest.approx(their_loss, rel=1e-3)
    for name in exact:
        ours, autocasts = (worst({name: g[name]}, {name: exact[name]})[0] for g in (gradients, theirs))
        assert ours < 1.7 * autocasts + 3e-3, name


def starts_of(rows: list[list[int]], length: int) -> torch.Tensor:
    """Where the text of each place begins, from where the texts of each row do."""
    places = torch.arange(length)
    found = []
    for begins in rows:
        edges = torch.tensor(begins)
        found.append(edges[torch.searchsorted(edges, places, right=True) - 1])
    return torch.stack(found)


PACKED = {(3, 40): [[0, 7, 31], [0], [0, 20, 21]], (2, 288): [[0, 130, 131, 257], [0, 64, 200]]}


@pytest.mark.parametrize("shape", PACKED, ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_of_several_texts_have_autograds_gradients(name, shape):
    config = dataclasses.replace(LAYOUTS[name], max_position_embeddings=512)
    ids, targets = batch(*shape)
    starts = starts_of(PACKED[shape], shape[1])
    loss, gradients = by_kernels(config, ids, targets, torch.float32, 75, starts)
    their_loss, theirs = by_autograd(config, ids, targets, torch.float32, 75, starts)
    assert loss == pytest.approx(their_loss, rel=1e-6)
    assert worst(gradients, theirs)[0] < 1e-5, worst(gradients, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["qwen3", "gpt2", "groups and a window"])
def test_texts_of_one_row_learn_as_if_each_were_alone(name, dtype):
    """Also on the tile unit, which takes rows of multiples of 32."""
    config, begins = LAYOUTS[name], [0, 37, 69, 70]
    ids, targets = batch(1, 96)
    texts = list(zip(begins, [*begins[1:], 96]))
    _, together = by_kernels(config, ids, targets, dtype, 75, starts_of([begins], 96))
    alone = {name: torch.zeros_like(g) for name, g in together.items()}
    for first, end in texts:
        _, gradients = by_kernels(config, ids[:, first:end], targets[:, first:end], dtype, 75)
        for name, gradient in gradients.items():
            alone[name] += gradient
    _, leaking = by_kernels(config, ids, targets, dtype, 75)
    least = 1e-5 if dtype == torch.float32 else 0.03
    assert worst(together, alone)[0] < least, worst(together, alone)
    assert worst(leaking, alone)[0] > 10 * least


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_do_not_change_a_bit(dtype):
    ids, targets = batch(3, 64)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(by_kernels(SMALL, ids, targets, dtype, 75))
    finally:
        torch.set_num_threads(before)
    # torch's own products may sum in another order; ours, on the tile unit, do not
    if dtype == torch.bfloat16 and has_tiles():
        assert found[0][0] == found[1][0] == found[2][0]
        assert all(torch.equal(found[0][1][n], found[i][1][n]) for n in found[0][1] for i in (1, 2))
    assert max(worst(found[0][1], other[1])[0] for other in found[1:]) < (
        1e-5 if dtype == torch.float32 else 0.02
    )


@pytest.mark.parametrize("lower", LEVELS[:2])
def test_instruction_sets_agree(lower):
    ids, targets = batch(2, 40)
    config = LAYOUTS["gpt2"]
    best = by_kernels(config, ids, targets, torch.float32, 75)
    qwen = by_kernels(SMALL, ids, targets, torch.float32, 75)
    with at_level(lower) as used:
        if used != lower:
            pytest.skip(f"this processor has no {lower}")
        assert worst(by_kernels(config, ids, targets, torch.float32, 75)[1], best[1])[0] < 1e-5
        assert worst(by_kernels(SMALL, ids, targets, torch.float32, 75)[1], qwen[1])[0] < 1e-5
    assert level() != "none"


def test_micro_batches_add_up_and_updates_are_noticed():
    ids, targets = batch(4, 64)
    whole = by_kernels(SMALL, ids, targets, torch.float32, 75)
    model = filled(SMALL)
    fused = FusedGradients(model, torch.float32)
    parts = sum(float(fused.loss_sum(ids[i : i + 2], targets[i : i + 2], 75)) for i in (0, 2))
    assert parts == pytest.approx(whole[0], rel=1e-6)
    assert worst({n: p.grad for n, p in model.named_parameters()}, whole[1])[0] < 1e-5
    before = float(fused.loss_sum(ids, targets, None))
    with torch.no_grad():
        model.blocks[0].mlp.up_proj.weight.add_(0.5)
    assert float(fused.loss_sum(ids, targets, None)) != pytest.approx(before, rel=1e-3)


def test_a_loss_alone_leaves_no_gradient():
    ids, targets = batch(2, 64)
    model = filled(SMALL)
    loss = float(FusedGradients(model, torch.float32).loss_sum(ids, targets, None))
    assert loss == pytest.approx(by_autograd(SMALL, ids, targets, torch.float32, 75)[0], rel=1e-6)
    assert all(p.grad is None for p in model.parameters())


def test_what_is_not_covered_says_why():
    assert "cuda" in (why_not(SMALL, "cuda", False) or "")
    assert "checkpointing" in (why_not(SMALL, "cpu", True) or "")
    assert "norm_placement" in (why_not(in_architecture(SMALL, "olmo2"), "cpu", False) or "")
    assert "activation" in (why_not(dataclasses.replace(SMALL, activation="relu"), "cpu", False) or "")


def test_without_the_library_training_goes_through_torch(corpus, tmp_path):
    code = (
        "import sys, ownlm, json; from tests.conftest import TINY\n"
        "run = ownlm.pretrain(sys.argv[1], output=sys.argv[2], max_steps=2, **TINY)\n"
        "print(json.dumps(run.content['plan']['fused']))"
    )
    found = {}
    for native in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(corpus), str(tmp_path / native)],
            env={**os.environ, "OWNLM_NATIVE": native}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[native] = done.stdout.strip().splitlines()[-1]
    assert found == {"0": "false", "1": "true"}


@pytest.mark.parametrize("matrix", ["q_proj", "k_proj", "v_proj"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_is_not_a_number_is_seen_in_the_loss(matrix, dtype):
    model = filled(SMALL)
    getattr(model.blocks[0].attention, matrix).weight.data[3, 5] = float("nan")
    ids, targets = batch(2, 64)
    loss = FusedGradients(model, dtype).loss_sum(ids, targets, None)
    assert torch.isnan(loss)
