"""The products of the native inference kernels against numpy: every dtype, instruction set and odd shape."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ownlm.engine.native_model import NativeModel
from ownlm.engine.quantized import BITS, Quantized, dequantize, quantize
from ownlm.kernels import inference as native
from ownlm.model.config import ModelConfig

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native kernels were not built")

Floats = npt.NDArray[np.float32]
UP = 2  # the matrix of the MLP that goes up, in the numbers of inference/engine.cpp
SHAPES = [(16, 32), (5, 7), (33, 100), (48, 65), (130, 200)]  # outputs, inputs
ROWS = [1, 2, 3, 4, 5, 7, 15, 16, 17, 33, 40]


def packed(weight: torch.Tensor | Quantized, bias: torch.Tensor, dtype: str) -> NativeModel:
    """A model whose one layer has this matrix."""
    outputs = len(bias)
    inputs = weight.inputs if isinstance(weight, Quantized) else weight.shape[1]
    config = ModelConfig(
        vocab_size=3, hidden_size=inputs, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        head_dim=2, intermediate_size=outputs, max_position_embeddings=8, mlp="plain", mlp_bias=True,
    )  # fmt: skip
    model = NativeModel(config, dtype, 8)
    model.fill([("blocks.0.mlp.up_proj.weight", weight), ("blocks.0.mlp.up_proj.bias", bias)], threads=1)
    return model


def product(model: NativeModel, x: Floats, threads: int = 1) -> Floats:
    x = np.ascontiguousarray(x, np.float32)
    out = np.full((len(x), model.config.intermediate_size), np.nan, np.float32)
    model.library.ownlm_inference_product(
        model.handle, 0, UP, len(x), ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data), threads
    )
    return out


def sample(shape: tuple[int, int], rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Floats]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) * 0.3
    bias = torch.randn(shape[0], generator=generator)
    return weight, bias, torch.randn((rows, shape[1]), generator=generator).numpy()


def rounded_rows(x: Floats, dtype: str) -> npt.NDArray[np.float64]:
    """x as the kernels see it."""
    if dtype == "float32":
        return x.astype(np.float64)
    if dtype == "bfloat16":
        return torch.from_numpy(x).bfloat16().double().numpy()
    groups = -(-x.shape[1] // 32)
    grouped = np.pad(x, ((0, 0), (0, groups * 32 - x.shape[1]))).reshape(len(x), groups, 32)
    largest = np.abs(grouped).max(-1, keepdims=True)
    whole = np.rint(grouped * (np.float32(127) / largest))
    values = whole.astype(np.float64) * (largest / np.float32(127))
    return values.reshape(len(x), -1)[:, : x.shape[1]]


def rounded_weight(weight: torch.Tensor, dtype: str) -> torch.Tensor:
    if dtype in BITS:
        return dequantize(quantize(weight, BITS[dtype]))
    return weight.to(getattr(torch, dtype)).float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", native.WEIGHTS)
def test_products_are_those_of_numpy(level: str, dtype: str, shape: tuple[int, int]) -> None:
    weight, bias, x = sample(shape, max(ROWS))
    expected = rounded_rows(x, dtype) @ rounded_weight(weight, dtype).double().numpy().T + bias.numpy()
    model = packed(weight, bias, dtype)
    for rows in ROWS:
        np.testing.assert_allclose(product(model, x[:rows]), expected[:rows], rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", native.WEIGHTS)
def test_a_row_has_the_same_bits_among_any_number_of_rows_on_any_number_of_threads(
    level: str, dtype: str
) -> None:
    weight, bias, x = sample((130, 200), 40)
    model = packed(weight, bias, dtype)
    alone = np.concatenate([product(model, row[None]) for row in x])
    for rows in ROWS:
        for threads in (1, 2, 3):
            assert product(model, x[:rows], threads).tobytes() == alone[:rows].tobytes()
            assert product(model, x[-rows:], threads).tobytes() == alone[-rows:].tobytes()


@pytest.mark.parametrize("dtype", native.WEIGHTS)
def test_all_instruction_sets_that_fuse_give_the_same_bits(dtype: str) -> None:
    weight, bias, x = sample((130, 200), 40)
    found = {}
    for name in native.LEVELS[1:]:
        with native.at_level(name) as used:
            found[used] = product(packed(weight, bias, dtype), x).tobytes()
    assert len(set(found.values())) == 1, list(found)


def hard_weights() -> torch.Tensor:
    """Groups that are zero, tiny, huge, one-sided, or hold ties."""
    weight = torch.randn((37, 100), generator=torch.Generator().manual_seed(1))
    weight[0] = 0
    weight[1] *= 1e-6  # scales that float16 rounds hard
    weight[2] *= 1e-9
    weight[3] *= 1e5
    weight[4] = weight[4].abs()
    weight[5] = -weight[5].abs()
    weight[6] = torch.arange(100) % 3 - 1.0
    weight[7, 33] = 50.0
    return weight


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_quantising_while_packing_is_that_of_torch_to_the_bit(
    level: str, dtype: str, stored: torch.dtype
) -> None:
    weight = hard_weights()
    weight[3] /= 10  # float16 ends at 65504
    weight = weight.to(stored)
    bias, x = torch.zeros(37), torch.randn(9, 100).numpy()
    whole = quantize(weight, BITS[dtype])
    assert (
        product(packed(weight, bias, dtype), x).tobytes() == product(packed(whole, bias, dtype), x).tobytes()
    )


def test_int8_is_as_near_as_its_scale_allows() -> None:
    weight = hard_weights()
    whole = quantize(weight, 8)
    step = whole.scales.float().repeat_interleave(32, 1)[:, :100]
    off = (dequantize(whole) - weight).abs()
    assert whole.values.abs().max() == 127
    normal = step > 6.2e-5  # below, float16 has fewer digits, and a scale of none is left
    assert (off <= step * 0.5 * 1.001 + weight.abs() * 1e-3)[normal].all()
    assert torch.equal(dequantize(whole)[0], weight[0])


def test_int4_is_nearer_than_q4_0() -> None:
    weight = torch.randn((64, 512), generator=torch.Generator().manual_seed(3))
    groups = weight.view(64, 16, 32)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = (largest / -8).half().float()
    q4_0 = ((groups / scale).round().clamp(-8, 7) * scale).view(64, 512)
    ours = dequantize(quantize(weight, 4))
    ratio = ((ours - weight).square().sum() / (q4_0 - weight).square().sum()).item()
    assert ratio < 0.92


@pytest.mark.parametrize("dtype", native.WEIGHTS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_hidden(level: str, dtype: str, bad: float) -> None:
    weight, bias, x = sample((33, 100), 20)
    x[3, 40] = bad
    found = product(packed(weight, bias, dtype), x)
    assert not np.isfinite(found[3]).any()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()
    weight[5, 70] = bad
    found = product(packed(weight, bias, dtype), x[4:])
    assert not np.isfinite(found[:, 5]).any()
    assert np.isfinite(np.delete(found, 5, axis=1)).all()


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNLM_NATIVE_LEVEL", "sse9")
    path = native.built("_inference")
    assert path is not None
    with pytest.raises(ValueError, match="OWNLM_NATIVE_LEVEL=sse9; known: portable"):
        native.opened(path)
