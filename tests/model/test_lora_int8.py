"""Adapters on a frozen base in int8: the same gradients as on the floats it stands for, and no floats kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.engine.conftest import random_model
from torch import Tensor, nn

from ownlm.console.errors import Refused, UsageError
from ownlm.engine import quantized
from ownlm.engine.int8_base import open_int8, quantize_base
from ownlm.engine.quantized import dequantize, named_entries, quantization_config, quantize, quantized_names
from ownlm.model import int8
from ownlm.model.checkpoint import save_model, save_tensors, write_json
from ownlm.model.families import to_hf_name, to_hugging_face
from ownlm.model.lora import LoraSettings, add_lora, lora_layers, merge_lora
from ownlm.model.transformer import Transformer

IDS = torch.randint(0, 60, (2, 24), generator=torch.Generator().manual_seed(1))
FORMS = [
    {},
    {"tie_word_embeddings": True},
    {"architecture": "qwen2", "attention_bias": True, "qk_norm": "none"},
]


def in_floats(model: Transformer) -> Transformer:
    """The floats that a model's int8 stands for."""
    for name, parameter in model.named_parameters():
        if name in quantized_names(model.config):
            parameter.data = dequantize(quantize(parameter.data, 8))
    return model


def filled(model: Transformer) -> Transformer:
    add_lora(model, LoraSettings(r=4, alpha=8), seed=1)
    generator = torch.Generator().manual_seed(5)
    for layer in lora_layers(model).values():
        layer.lora_B.data.copy_(torch.randn(layer.lora_B.shape, generator=generator) * 0.1)
    return model.train()


def gradients(model: Transformer, bf16: bool = False) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(IDS)
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_beside_the_floats(
    form: dict[str, object], bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "FLOATS_AT_ONCE", 7 * 96)  # several parts, the last one shorter
    expected = gradients(filled(in_floats(random_model(**form))), bf16)
    base = quantize_base(random_model(**form))
    assert isinstance(base, Transformer)
    found = gradients(filled(base), bf16)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < (0.02 if bf16 else 1e-5) * gradient.norm(), name


def held(model: nn.Module) -> dict[torch.dtype, int]:
    """Bytes of all weights by their dtype."""
    found: dict[torch.dtype, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.numel() * tensor.element_size()
    return found


@pytest.mark.parametrize("form", FORMS)
def test_memory_is_that_of_the_whole_numbers(form: dict[str, object]) -> None:
    whole = random_model(**form)
    matrices = quantized_names(whole.config)
    numbers = sum(p.numel() for name, p in whole.named_parameters() if name in matrices)
    others = sum(p.numel() for name, p in whole.named_parameters() if name not in matrices)
    base = quantize_base(whole)
    sizes = held(base)
    assert sizes[torch.int8] == numbers
    assert sizes[torch.float16] < 2 * numbers / 28  # a scale for 32, rows filled up
    assert sizes[torch.float32] == 4 * others


def test_what_is_kept_for_the_way_back_is_no_float_matrix() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    model = quantize_base(random_model())
    assert isinstance(model, Transformer)
    filled(model)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(IDS[:, :11])  # 22 tokens: no matrix has as many rows
    shapes = {tuple(layer.base.values.shape) for layer in lora_layers(model).values()}
    floats = [
        t for t in kept if t.is_floating_point() and tuple(t.shape) in shapes | {s[::-1] for s in shapes}
    ]
    assert not floats
    assert any(t.dtype == torch.int8 for t in kept)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("form", FORMS)
def test_a_folder_is_opened_matrix_by_matrix(
    form: dict[str, object], stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_model(**form)
    if stored == "int8":
        entries = {}
        for name, parameter in made.named_parameters():
            theirs, whole = to_hf_name(name, made.config.architecture), name in quantized_names(made.config)
            value = parameter.detach()
            entries |= named_entries(theirs, quantize(value, 8)) if whole else {theirs: value}
        save_tensors(entries, tmp_path / "model.safetensors")
        content = to_hugging_face(made.config, {}) | {"quantization_config": quantization_config(8)}
        write_json(tmp_path / "config.json", content)
    else:
        save_model(made, tmp_path, {}, getattr(torch, stored))
        if stored == "bfloat16":
            made = made.bfloat16().float()
    asked: list[bool] = []
    read = quantized.stored_weights

    def seen(folder: Path, *, in_turn: bool = False):
        asked.append(in_turn)
        return read(folder, in_turn=in_turn)

    monkeypatch.setattr("ownlm.engine.int8_base.stored_weights", seen)
    opened, wanted = open_int8(tmp_path), quantize_base(made)
    assert asked == [True]  # all in one place of memory
    expected = dict(wanted.state_dict())
    found = dict(opened.state_dict())
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    with torch.no_grad():
        assert torch.equal(opened(IDS), wanted(IDS))


def test_merging_into_whole_numbers_is_refused() -> None:
    model = quantize_base(random_model())
    assert isinstance(model, Transformer)
    filled(model)
    with pytest.raises(UsageError, match="int8"):
        merge_lora(model)
    assert lora_layers(model)


def test_a_folder_in_int4_is_refused(tmp_path: Path) -> None:
    made = random_model()
    save_model(made, tmp_path, {})
    content = to_hugging_face(made.config, {}) | {"quantization_config": quantization_config(4)}
    write_json(tmp_path / "config.json", content)
    with pytest.raises(Refused, match="int4"):
        open_int8(tmp_path)
