"""`ownlm export --dtype int8|int4`: the weights that quantising at load gives, in a folder that says what that cost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ownlm
from ownlm.cli import main
from ownlm.console.errors import Refused
from ownlm.engine import Engine, native_backend
from ownlm.engine.opening import open_folder
from ownlm.engine.quantized import BITS, Quantized, quantize, quantized_names, stored_weights
from ownlm.export import quantize as quantize_module
from ownlm.export.quantize import quantize_folder
from ownlm.model.checkpoint import save_model
from ownlm.model.transformer import Transformer
from tests.engine.conformance import LAYOUTS
from tests.engine.conftest import random_model

built = pytest.mark.skipif(not native_backend.available(), reason="the native kernels were not built")
IDS = np.random.default_rng(0).integers(0, 60, 80).tolist()
TEXT = "".join(f"{i}: The fox and the river, and the small dog sleeps.\n" for i in range(60))


def family(layout: str, **changes: object) -> Transformer:
    return random_model(**dict(LAYOUTS[layout]) | {"architecture": layout, "head_dim": 24} | changes)


@pytest.mark.parametrize("layout", ["gpt2", "qwen3", "phi3"])
@pytest.mark.parametrize("dtype", BITS)
def test_values_and_scales_are_those_of_quantising_a_matrix(tmp_path: Path, layout: str, dtype: str) -> None:
    model = family(layout)
    save_model(model, tmp_path / "source", {}, torch.bfloat16)
    (tmp_path / "out").mkdir()
    quantize_folder(tmp_path / "source", tmp_path / "out", dtype)
    found = dict(stored_weights(tmp_path / "out"))
    assert found.keys() == dict(model.named_parameters()).keys()
    whole = quantized_names(model.config)
    for name, parameter in model.named_parameters():
        stored, read = parameter.detach().to(torch.bfloat16).float(), found[name]
        if name not in whole:
            assert isinstance(read, torch.Tensor) and torch.equal(read, stored), name
            continue
        assert isinstance(read, Quantized)
        wanted = quantize(stored, BITS[dtype])
        assert torch.equal(read.values, wanted.values) and torch.equal(read.scales, wanted.scales), name
    assert whole, "something was quantised"


@built
@pytest.mark.parametrize("dtype", BITS)
def test_a_folder_computes_the_bits_of_quantising_at_load(tmp_path: Path, dtype: str) -> None:
    save_model(family("qwen3"), tmp_path / "source", {}, torch.float32)
    (tmp_path / "out").mkdir()
    quantize_folder(tmp_path / "source", tmp_path / "out", dtype, shard_bytes=30_000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    one = Engine(open_folder(tmp_path / "out"))
    assert (one.backend.name, one.backend.dtype) == ("native", dtype)
    other = Engine(open_folder(tmp_path / "source", dtype=dtype))
    assert one.score([IDS])[0].logprobs.tobytes() == other.score([IDS])[0].logprobs.tobytes()


def test_parts_of_a_matrix_are_quantised_apart_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(family("gpt2"), tmp_path / "source", {})
    for name, at_once in (("whole", 2**22), ("parts", 300)):
        monkeypatch.setattr(quantize_module, "AT_ONCE", at_once)
        (tmp_path / name).mkdir()
        quantize_folder(tmp_path / "source", tmp_path / name, "int4")
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == other


def test_the_files_are_safetensors_and_every_tensor_is_aligned(tmp_path: Path) -> None:
    save_model(family("gpt2", vocab_size=61), tmp_path / "source", {})
    (tmp_path / "out").mkdir()
    done = quantize_folder(tmp_path / "source", tmp_path / "out", "int8")
    file = tmp_path / "out" / "model.safetensors"
    tensors = load_file(file)
    assert len(tensors) == done["tensors"]
    assert sum(t.nbytes for t in tensors.values()) == done["bytes"] < file.stat().st_size
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    raw = file.read_bytes()
    header = json.loads(raw[8 : 8 + (size := int.from_bytes(raw[:8], "little"))])
    for name, tensor in tensors.items():
        assert (8 + size + header[name]["data_offsets"][0]) % tensor.element_size() == 0, name
    assert not list((tmp_path / "out").glob("*.tmp"))


MEASURE = """
import sys
from pathlib import Path
from ownlm.export.quantize import quantize_folder
from ownlm.machine.cpu import give_freed_memory_back, process_memory
give_freed_memory_back()
source, small, target = map(Path, sys.argv[1:4])
quantize_folder(small, target / "small", sys.argv[4])
before = process_memory().now
quantize_folder(source, target / "big", sys.argv[4])
print(process_memory().peak - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_one_tensor_and_buffers(tmp_path: Path) -> None:
    save_model(family("qwen3"), tmp_path / "few", {})
    big = random_model(
        architecture="qwen3", hidden_size=1024, intermediate_size=2048, num_hidden_layers=3, head_dim=64
    )
    save_model(big, tmp_path / "source", {})
    for name in ("small", "big"):
        (tmp_path / name).mkdir()
    command = [
        sys.executable,
        "-c",
        MEASURE,
        *map(str, (tmp_path / "source", tmp_path / "few", tmp_path)),
        "int8",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tensor, buffers = 1024 * 2048 * 4, 2**20 * 32  # float32 steps of the arithmetic
    stored = (tmp_path / "source" / "model.safetensors").stat().st_size
    assert stored > 1.5 * (tensor + buffers), "else the bound says nothing"
    assert int(done.stdout) < tensor + buffers, (int(done.stdout), stored)


# ---- the verb


def test_the_card_says_what_rounding_costs_on_the_held_out_text(run: Path, tmp_path: Path) -> None:
    done = ownlm.export(str(run), tmp_path / "out", dtype="int4")
    quality = done["quality"]
    figures = ownlm.evaluate(run)
    for name in ("bits_per_byte", "perplexity"):
        assert quality["before"][name] == figures[name]
        after = ownlm.evaluate(tmp_path / "out")[name]
        assert quality["after"][name] == after
        assert after["value"] != figures[name]["value"]
        assert after["value"] == pytest.approx(figures[name]["value"], rel=0.1)
    ratio = quality["after"]["perplexity"]["value"] / quality["before"]["perplexity"]["value"]
    assert quality["perplexity_ratio"]["value"] == pytest.approx(ratio)
    assert quality["perplexity_ratio"]["low"] < ratio < quality["perplexity_ratio"]["high"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{quality['before']['perplexity']['value']:.4f} before (float32)" in card
    assert f"{quality['after']['perplexity']['value']:.4f} after (int4)" in card
    assert f"{ratio:.4f} times as much" in card and f"{quality['tokens']:,} tokens" in card
    assert "transformers, vLLM and llama.cpp do not" in card and "library_name: ownlm" in card
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "result" not in content and content["exported"], "the figures of the source are not this folder's"


def test_a_large_held_out_text_is_measured_as_far_as_minutes_allow(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownlm.verbs._quantised.LEAST_TOKENS", 50)
    monkeypatch.setattr("ownlm.verbs._quantised.FLOPS", 0)
    quality = ownlm.export(str(run), tmp_path / "out", dtype="int8")["quality"]
    assert quality["tokens"] == 50 and quality["text"].startswith("the beginning of the held-out split")
    assert quality["bytes"] == pytest.approx(50 * 2, abs=90)


def test_a_text_of_ones_own_and_none_at_all(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.txt").write_text(TEXT, encoding="utf-8")
    words = [
        "export",
        str(run),
        str(tmp_path / "a"),
        "--dtype",
        "int8",
        "--text",
        str(tmp_path / "t.txt"),
        "--json",
    ]
    assert main(words) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["quality"]["bytes"] == len(TEXT)
    assert done["quality"]["perplexity_ratio"]["value"] == pytest.approx(1, abs=0.02)
    alone = tmp_path / "alone"
    shutil.copytree(run, alone, ignore=shutil.ignore_patterns("run.json", "checkpoints"))
    assert main(["export", str(alone), str(tmp_path / "b"), "--dtype", "int8"]) == 0
    said = capsys.readouterr().err
    for text in (said, (tmp_path / "b" / "README.md").read_text()):
        assert (
            "was not measured: run.json names no corpus: there is no held-out text to read (--text FILE)"
            in text
        )


@built
def test_every_verb_opens_the_folder_as_it_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ownlm.export(str(run), tmp_path / "out", dtype="int8")
    loaded = ownlm.load(tmp_path / "out")
    assert loaded.engine.backend.dtype == "int8"
    options = {"max_new_tokens": 8, "seed": 1}
    assert loaded.generate("The river", **options) == ownlm.load(run, dtype="int8").generate(
        "The river", **options
    )
    row = ownlm.bench(tmp_path / "out", prompt_tokens=8, new_tokens=4, batch=1, repetitions=1)
    assert row["dtype"] == "int8"
    logprob = ownlm.score(tmp_path / "out", [TEXT[:60]])["texts"][0]["logprob"]
    monkeypatch.setattr(native_backend, "available", lambda: False)
    floats = ownlm.load(tmp_path / "out")
    assert floats.engine.backend.name == "torch"
    assert ownlm.score(floats, [TEXT[:60]])["texts"][0]["logprob"] == pytest.approx(logprob, rel=0.02)


def test_another_program_does_not_take_whole_numbers_for_weights(run: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for dtype in BITS:
        ownlm.export(str(run), tmp_path / dtype, dtype=dtype)
        with pytest.raises((RuntimeError, ValueError)):
            transformers.AutoModelForCausalLM.from_pretrained(tmp_path / dtype)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("quantised", "quantised already"),
        ("masked", "a masked model"),
        ("head", "a model with a task head"),
        ("foreign", 'the architecture "mamba" is not built in'),
    ],
)
def test_models_that_cannot_be_quantised_are_refused(
    run: Path, tmp_path: Path, what: str, words: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(run, source, ignore=shutil.ignore_patterns("checkpoints"))
    if what == "quantised":
        shutil.rmtree(source)
        ownlm.export(str(run), source, dtype="int8")
    else:
        content = json.loads((source / "config.json").read_text())
        content |= {
            "masked": {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
            "head": {"architectures": ["Qwen3ForSequenceClassification"]},
            "foreign": {"model_type": "mamba", "architectures": ["MambaForCausalLM"]},
        }[what]
        (source / "config.json").write_text(json.dumps(content))
    with pytest.raises(Refused, match=words) as caught:
        ownlm.export(str(source), tmp_path / "out", dtype="int4")
    assert caught.value.do and not (tmp_path / "out").exists()


def test_whole_numbers_do_not_become_floats_by_another_name(run: Path, tmp_path: Path) -> None:
    ownlm.export(str(run), tmp_path / "int8", dtype="int8")
    with pytest.raises(Refused, match="whole numbers have no other dtype"):
        ownlm.export(str(tmp_path / "int8"), tmp_path / "out", dtype="bfloat16")
    ownlm.export(str(tmp_path / "int8"), tmp_path / "copy")
    assert ownlm.load(tmp_path / "copy").generate("The", seed=1, max_new_tokens=5) == ownlm.load(
        tmp_path / "int8"
    ).generate("The", seed=1, max_new_tokens=5)


def test_weights_that_no_scale_holds_are_refused(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(run, source, ignore=shutil.ignore_patterns("checkpoints"))
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = 1e9
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Refused, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds weights too large"):
        ownlm.export(str(source), tmp_path / "out", dtype="int8")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", "t.txt"], "--text: only with --dtype int8 or int4"),
        (["--dtype", "int8", "--text", "missing.txt"], "no such file"),
        (["--dtype", "int8", "--merge-adapter"], "made from a model folder"),
    ],
)
def test_options_that_do_not_go_together(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["export", str(run), str(tmp_path / "out"), *arguments]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()
