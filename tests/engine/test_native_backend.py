"""The native backend against the torch model: families, dtypes, instruction sets, adapters, folders."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ownlm.console.errors import UsageError
from ownlm.engine import native_backend
from ownlm.engine.backend import LoraWeights, Piece
from ownlm.engine.native_backend import NativeBackend
from ownlm.engine.quantized import (
    BITS,
    dequantize,
    quantize,
    quantized_names,
)  # fmt: skip
from ownlm.kernels import inference as native
from ownlm.model.transformer import Transformer

from .conformance import LAYOUTS
from .conftest import random_model

pytestmark = pytest.mark.skipif(not native_backend.available(), reason="the native kernels were not built")

IDS = np.random.default_rng(0).integers(0, 60, 150).astype(np.int32)
# Root mean square of the error beside that of the logits, when the torch model has the rounded weights. What enters a
# product is rounded, too: to 8 bits of its own (bfloat16), or of the largest of 32 (int8, int4).
TOLERANCE = {"float32": 2e-6, "bfloat16": 0.013, "int8": 0.035, "int4": 0.035}


def piece(
    ids: npt.ArrayLike, start: int = 0, blocks: Sequence[int] = (3, 1, 2), wanted: npt.ArrayLike | None = None,
    adapter: int = 0,
) -> Piece:  # fmt: skip
    ids = np.asarray(ids, np.int32)
    needed = -(-(start + len(ids)) // 64)
    outputs = np.arange(len(ids)) if wanted is None else wanted
    return Piece(0, ids, start, np.array(blocks[:needed], np.int32), np.asarray(outputs, np.int32), adapter)


def made(model: Transformer, dtype: str, threads: int = 1) -> NativeBackend:
    backend = NativeBackend.of(model, dtype, threads=threads)
    backend.reserve(8)
    return backend


def lively(**changes: object) -> Transformer:
    """A random model whose norms and biases do something."""
    model = random_model(**changes)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def with_quantised_weights(model: Transformer, dtype: str) -> Transformer:
    """The model that the packed weights stand for."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if dtype == "bfloat16" and parameter.ndim == 2 and "position" not in name:
                parameter.copy_(parameter.bfloat16())
            if dtype in BITS and name in quantized_names(model.config):
                parameter.copy_(dequantize(quantize(parameter, BITS[dtype])))
    return model


def logits(model: Transformer, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        return model(torch.from_numpy(ids.astype(np.int64))[None])[0].numpy()


def off(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Root mean square of the error, beside that of what was expected."""
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


@pytest.mark.parametrize("dtype", native.WEIGHTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_family_is_that_of_torch(layout: str, dtype: str) -> None:
    model = lively(**LAYOUTS[layout])
    expected = logits(with_quantised_weights(model, dtype), IDS)
    found = made(model, dtype).compute([piece(IDS)])[0]
    assert off(found, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu", "relu2"])
@pytest.mark.parametrize("mlp", ["gated", "plain"])
def test_every_activation_is_that_of_torch(level: str, activation: str, mlp: str) -> None:
    for inner in (200, 256):  # with and without a last group that is not full
        model = lively(activation=activation, mlp=mlp, intermediate_size=inner)
        expected = logits(model, IDS)
        found = made(model, "float32").compute([piece(IDS)])[0]
        assert off(found, expected) < TOLERANCE["float32"]


ODD = {
    "odd heads": {"num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 10},
    "many heads to one": {"num_attention_heads": 40, "num_key_value_heads": 2, "head_dim": 8},
    "odd width": {"hidden_size": 61, "intermediate_size": 37, "head_dim": 14},
    "whole groups": {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32},
    "long heads": {"head_dim": 80, "sliding_window": 3},
    "scaled": {"attention_scale": 0.3, "positions": "none"},
}  # fmt: skip


@pytest.mark.parametrize("dtype", native.WEIGHTS)
@pytest.mark.parametrize("shape", ODD)
def test_shapes_that_fill_no_block_are_right_and_bit_equal_however_they_are_cut(
    level: str, shape: str, dtype: str
) -> None:
    model = lively(**ODD[shape])
    expected = logits(with_quantised_weights(model, dtype), IDS)
    whole = made(model, dtype).compute([piece(IDS)])[0]
    assert off(whole, expected) < TOLERANCE[dtype]
    one, cut = made(model, dtype, threads=2), made(model, dtype)
    singly = [one.compute([piece(IDS[i : i + 1], i, (7, 5, 0))])[0] for i in range(len(IDS))]
    assert np.concatenate(singly).tobytes() == whole.tobytes()
    places = [0, 3, 4, 63, 64, 66, 97, 130, 131, 150]
    chunks = [cut.compute([piece(IDS[a:b], a, (0, 6, 4))])[0] for a, b in itertools.pairwise(places)]
    assert np.concatenate(chunks).tobytes() == whole.tobytes()


@pytest.mark.parametrize("dtype", native.WEIGHTS)
def test_a_family_has_one_result_on_all_instruction_sets_that_fuse(dtype: str) -> None:
    model = lively()
    found = {}
    for name in native.LEVELS[1:]:
        with native.at_level(name) as used:
            found[used] = made(model, dtype).compute([piece(IDS)])[0].tobytes()
    assert len(set(found.values())) == 1, list(found)


def test_only_wanted_results_are_computed_and_they_are_the_same() -> None:
    model = lively()
    whole = made(model, "int8").compute([piece(IDS)])[0]
    backend = made(model, "int8", threads=2)
    wanted = [0, 1, 70, 149]
    some = backend.compute([piece(IDS, wanted=wanted), piece(IDS[:9], blocks=[5], wanted=[])])
    assert some[0].tobytes() == whole[wanted].tobytes()
    assert some[1].shape == (0, 60)
    # The second piece's keys and values are there all the same.
    assert backend.compute([piece(IDS[9:10], 9, [5])])[0].tobytes() == whole[9:10].tobytes()
    assert backend.compute([]) == []


def test_hidden_states_are_those_of_torch() -> None:
    for layout in ("qwen3", "olmo2", "gpt2"):
        model = lively(**LAYOUTS[layout])
        with torch.inference_mode():
            expected = model.hidden(torch.from_numpy(IDS.astype(np.int64))[None])[0].numpy()
        backend = made(model, "float32")
        found = backend.hidden([piece(IDS, wanted=[5, 149])])[0]
        np.testing.assert_allclose(found, expected[[5, 149]], atol=2e-5)


def test_a_copied_block_stands_for_its_source() -> None:
    backend = made(lively(), "int8")
    whole = backend.compute([piece(IDS)])[0]
    backend.copy_block(1, 6)
    again = backend.compute([piece(IDS[120:], 120, (3, 6, 2))])[0]
    assert again.tobytes() == whole[120:].tobytes()
    with pytest.raises(ValueError, match="cache blocks 1 and 8 of 8"):
        backend.copy_block(1, 8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (piece([60]), "the model has 60"),
        (piece([-1]), "token ids from -1"),
        (piece([1], 256, range(5)), "position 256 in a context of 256"),
        (piece([1], blocks=[8]), "cache block 8 of 8"),
        (piece([1], 64, [0]), "1 blocks for 65 tokens"),
        (piece([1], wanted=[1]), "results"),
    ],
)
def test_what_would_read_outside_is_refused(wrong: Piece, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(random_model(), "int8").compute([wrong])


# ---- adapters


def lora(model: Transformer, names: Sequence[str], seed: int, scale: float = 0.5) -> LoraWeights:
    rng = np.random.default_rng(seed)
    shapes = {n: m.weight.shape for n, m in model.named_modules() if n in names}
    return LoraWeights(
        {
            n: (rng.normal(0, 0.1, (5, k)).astype(np.float32), rng.normal(0, 0.1, (o, 5)).astype(np.float32))
            for n, (o, k) in shapes.items()
        },
        scale,
    )  # fmt: skip


def merged(model: Transformer, adapter: LoraWeights) -> Transformer:
    model = copy.deepcopy(model)
    for name, (down, up) in adapter.matrices.items():
        weight = model.get_submodule(name).weight
        with torch.no_grad():
            weight += adapter.scale * torch.from_numpy(up @ down)
    return model


TARGETS = {
    "qwen3": ["attention.q_proj", "attention.v_proj", "attention.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    "phi3": ["attention.qkv_proj", "mlp.gate_up_proj"],
}  # fmt: skip


@pytest.mark.parametrize("layout", TARGETS)
def test_adapters_are_what_merging_gives_each_for_its_own_rows(layout: str) -> None:
    model = lively(**LAYOUTS[layout] | {"tie_word_embeddings": False})
    names = [f"blocks.{i}.{name}" for i in range(2) for name in TARGETS[layout]] + ["lm_head"]
    first, second = lora(model, names, 1), lora(model, names, 2)
    backend = made(model, "float32", threads=2)
    one, two = backend.add_adapter(first), backend.add_adapter(second)
    pieces = [
        piece(IDS[:40], blocks=[0], adapter=one),
        piece(IDS[:40], blocks=[1]),
        piece(IDS[:40], blocks=[2], adapter=two),
    ]
    for found, wanted in zip(
        backend.compute(pieces), [merged(model, first), model, merged(model, second)], strict=True
    ):
        expected = logits(wanted, IDS[:40])
        assert off(found, expected) < TOLERANCE["float32"]
    alone = made(model, "float32")
    assert alone.compute([pieces[1]])[0].tobytes() == backend.compute(pieces)[1].tobytes()
    assert alone.add_adapter(second) == 1
    singly = [alone.compute([piece(IDS[i : i + 1], i, [4], adapter=1)])[0] for i in range(40)]
    assert np.concatenate(singly).tobytes() == backend.compute(pieces)[2].tobytes()
    backend.remove_adapter(one)
    with pytest.raises(UsageError, match="there is no adapter 1"):
        backend.compute(pieces)


def test_adapters_that_do_not_fit_are_refused_by_name() -> None:
    backend = made(random_model(), "int8")
    zeros = np.zeros((2, 96), np.float32), np.zeros((7, 2), np.float32)
    with pytest.raises(UsageError, match='no linear layer "blocks.0.attention.c_attn"'):
        backend.add_adapter(LoraWeights({"blocks.0.attention.c_attn": zeros}, 1.0))
    with pytest.raises(UsageError, match=r"B \[7, 2\] for a layer \[96, 96\]"):
        backend.add_adapter(LoraWeights({"blocks.0.attention.q_proj": zeros}, 1.0))
    with pytest.raises(UsageError, match="there is no adapter 3"):
        backend.remove_adapter(3)
