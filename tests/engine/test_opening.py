"""Which backend computes a folder, in which dtype, and what is said or refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ownlm
from ownlm.console.errors import Refused, UsageError
from ownlm.engine import Engine, memory_plan, native_backend, opening
from ownlm.engine import engine as engine_module
from ownlm.engine.memory_plan import MemoryPlan
from ownlm.engine.opening import open_folder, torch_model
from ownlm.engine.quantized import named_entries, quantization_config, quantize, quantized_names
from ownlm.model.checkpoint import save_model, save_tensors, write_json
from ownlm.model.families import to_hf_name, to_hugging_face
from ownlm.model.transformer import Transformer

NATIVE = native_backend.available()
built = pytest.mark.skipif(not NATIVE, reason="the native kernels were not built")
IDS = np.random.default_rng(0).integers(0, 60, 80).tolist()


@pytest.fixture(scope="module")
def folders(model: Transformer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model as it is, in bf16, and quantised."""
    found = {name: tmp_path_factory.mktemp(name) for name in ("float32", "bfloat16", "int8")}
    save_model(model, found["float32"], {}, torch.float32)
    save_model(model, found["bfloat16"], {}, torch.bfloat16)
    entries = {}
    for name, parameter in model.named_parameters():
        theirs = to_hf_name(name, model.config.architecture)
        whole = name in quantized_names(model.config)
        entries |= (
            named_entries(theirs, quantize(parameter.detach(), 8)) if whole else {theirs: parameter.detach()}
        )
    save_tensors(entries, found["int8"] / "model.safetensors")
    content = to_hugging_face(model.config, {}) | {"quantization_config": quantization_config(8)}
    write_json(found["int8"] / "config.json", content)
    return found


def loss(folder: Path, **options: str) -> float:
    return -float(Engine(open_folder(folder, **options)).score([IDS])[0].logprobs.mean())


@built
def test_auto_is_the_stored_dtype_on_the_native_kernels(folders: dict[str, Path]) -> None:
    for dtype, folder in folders.items():
        backend = open_folder(folder)
        assert (backend.name, backend.dtype) == ("native", dtype)
    assert open_folder(folders["float32"], dtype="int4").dtype == "int4"


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "int8"])
def test_torch_reads_every_folder(folders: dict[str, Path], stored: str) -> None:
    backend = open_folder(folders[stored], backend="torch", dtype="float32")
    assert (backend.name, backend.dtype) == ("torch", "float32")
    exact = loss(folders["float32"], backend="torch")
    assert loss(folders[stored], backend="torch", dtype="float32") == pytest.approx(exact, abs=0.02)
    if NATIVE and stored != "int8":  # there activations are rounded too
        assert loss(folders[stored], dtype="float32") == pytest.approx(exact, abs=0.02)


def test_quantised_weights_become_floats_again(folders: dict[str, Path], model: Transformer) -> None:
    opened = dict(torch_model(folders["int8"], "cpu", torch.float32).named_parameters())
    for name, parameter in model.named_parameters():
        step = parameter.abs().max() / 127
        assert (opened[name] - parameter).abs().max() <= 0.51 * step, name


def test_without_the_kernels_torch_computes_and_integers_are_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_backend, "available", lambda: False)
    assert open_folder(folders["float32"]).name == "torch"
    with pytest.raises(UsageError, match=r"int8 needs the native kernels.*not built"):
        open_folder(folders["float32"], dtype="int8")
    with pytest.raises(UsageError, match="not built"):
        open_folder(folders["float32"], backend="native")


def test_it_is_said_when_torch_computes(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ownlm.load(run, backend="torch")
    if NATIVE:
        ownlm.load(run)
    assert opening.NOT_BUILT not in capsys.readouterr().err
    monkeypatch.setattr(native_backend, "available", lambda: False)
    assert ownlm.load(run).engine.backend.name == "torch"
    assert opening.NOT_BUILT in capsys.readouterr().err


def test_memory_is_looked_at_before_weights_are_read(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(memory_plan, "available_memory", lambda: 400_000)
    for name in ("load_model", "stored_weights"):
        monkeypatch.setattr(opening, name, never)
    monkeypatch.setattr("ownlm.engine.native_backend.stored_weights", never)
    with pytest.raises(Refused, match=r"does not fit into memory: weights 730.4 kB .* 400.0 kB free"):
        open_folder(folders["float32"])


def test_it_is_said_when_the_cache_holds_less_than_a_window(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ownlm.load(run)
    assert "memory: " not in capsys.readouterr().err
    monkeypatch.setattr(
        engine_module, "plan_for", lambda *_, **__: MemoryPlan(10**6, 64_000, 9, 10**7, 1, 1000)
    )
    ownlm.load(run)
    said = capsys.readouterr().err
    assert "memory: weights 1.0 MB + cache 64.0 kB for 64 tokens" in said
    assert "a text may have 64 tokens, the window would hold 1,000" in said


@built
def test_a_run_is_used_in_integers(run: Path) -> None:
    model = ownlm.load(run, dtype="int8")
    assert model.engine.backend.dtype == "int8"
    text = model.generate("The quick", seed=1, max_new_tokens=8)
    assert (
        text == ownlm.load(run, dtype="int8").generate(["A river", "The quick"], seed=1, max_new_tokens=8)[1]
    )
    assert model.model.embedding.weight.dtype == torch.float32, (
        "the torch model is there for what needs gradients"
    )
    assert "parameters" in repr(model)
