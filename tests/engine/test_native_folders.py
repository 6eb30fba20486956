"""The native backend on folders: plain and quantised ones, damaged ones, and the memory that opening takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ownlm.console.errors import Refused, UsageError
from ownlm.engine import native_backend
from ownlm.engine.native_backend import NativeBackend
from ownlm.engine.quantized import (
    BITS,
    SCALE,
    named_entries,
    quantization_config,
    quantize,
    quantized_names,
)
from ownlm.kernels import inference as native
from ownlm.model.checkpoint import save_model, save_tensors, write_json
from ownlm.model.families import to_hf_name, to_hugging_face
from ownlm.model.transformer import Transformer

from .conformance import LAYOUTS
from .test_native_backend import IDS, lively, made, piece

pytestmark = pytest.mark.skipif(not native_backend.available(), reason="the native kernels were not built")


@pytest.mark.parametrize("layout", ["gpt2", "qwen3", "phi3"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_a_folder_is_read_as_the_model_it_holds(tmp_path: Path, layout: str, stored: torch.dtype) -> None:
    model = family(layout)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(stored))
    save_model(model, tmp_path, {}, stored)
    for dtype in native.WEIGHTS:
        opened = NativeBackend.open(tmp_path, dtype)
        opened.reserve(8)
        assert (
            opened.compute([piece(IDS)])[0].tobytes() == made(model, dtype).compute([piece(IDS)])[0].tobytes()
        )


def family(layout: str) -> Transformer:
    changes = dict(LAYOUTS[layout]) | {"architecture": layout, "head_dim": 24}
    return lively(**changes)


def save_quantised(model: Transformer, folder: Path, bits: int) -> None:
    entries = {}
    for name, parameter in model.named_parameters():
        theirs = to_hf_name(name, model.config.architecture)
        if name in quantized_names(model.config):
            entries |= named_entries(theirs, quantize(parameter.detach(), bits))
        else:
            entries[theirs] = parameter.detach()
    save_tensors(entries, folder / "model.safetensors")
    content = to_hugging_face(model.config, {}) | {"quantization_config": quantization_config(bits)}
    write_json(folder / "config.json", content)


@pytest.mark.parametrize("layout", ["gpt2", "qwen3"])
@pytest.mark.parametrize("dtype", BITS)
def test_a_quantised_folder_is_what_quantising_while_loading_gives(
    tmp_path: Path, layout: str, dtype: str
) -> None:
    model = family(layout)
    save_quantised(model, tmp_path, BITS[dtype])
    opened = NativeBackend.open(tmp_path, dtype)
    opened.reserve(8)
    assert opened.compute([piece(IDS)])[0].tobytes() == made(model, dtype).compute([piece(IDS)])[0].tobytes()
    with pytest.raises(UsageError, match=f"quantised to {dtype}; bfloat16 was asked for"):
        NativeBackend.open(tmp_path, "bfloat16")


def test_a_damaged_quantised_folder_is_refused(tmp_path: Path) -> None:
    model = family("qwen3")
    save_quantised(model, tmp_path, 8)
    content = json.loads((tmp_path / "config.json").read_text())
    content["quantization_config"]["bits"] = 4
    write_json(tmp_path / "config.json", content)
    with pytest.raises(Refused, match=r"is \[\d+, \d+, 32\] int8, the config wants \[\d+, \d+\] uint8"):
        NativeBackend.open(tmp_path, "int4")
    content["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    write_json(tmp_path / "config.json", content)
    with pytest.raises(Refused, match="quantised \\('gptq'\\), in a way that is not read"):
        NativeBackend.open(tmp_path, "int4")
    content["quantization_config"] = quantization_config(8)
    write_json(tmp_path / "config.json", content)
    entries = {
        to_hf_name(name, "qwen3") + SCALE: torch.zeros(1, dtype=torch.float16)
        for name in quantized_names(model.config)
    }
    save_tensors(entries, tmp_path / "model.safetensors")
    with pytest.raises(Refused, match="is missing"):
        NativeBackend.open(tmp_path, "int8")


MEASURE = """
import sys
from pathlib import Path
from ownlm.engine.native_backend import NativeBackend
from ownlm.machine.cpu import process_memory
NativeBackend.open(Path(sys.argv[2]), "int8", threads=1)  # libraries are loaded, threads begun
before = process_memory().now
backend = NativeBackend.open(Path(sys.argv[1]), "int8", threads=1)
print(process_memory().peak - before, backend.weight_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_opening_a_folder_takes_the_packed_model_and_one_tensor(tmp_path: Path) -> None:
    save_model(family("qwen3"), tmp_path / "small", {})
    save_model(
        lively(architecture="qwen3", hidden_size=1024, intermediate_size=2048, num_hidden_layers=4),
        tmp_path / "big",
        {},
    )
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "big"), str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, packed = map(int, done.stdout.split())
    stored = (tmp_path / "big" / "model.safetensors").stat().st_size
    largest = 1024 * 2048 * 4
    assert stored > packed * 3.5
    assert taken < packed + 2 * largest + 2**22, (taken, packed)
