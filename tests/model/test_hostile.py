"""Folders from strangers: damaged, oversized, lying, pickled. A clear refusal each, no crash, nothing allocated first."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from tests.model.test_attention import config, filled

from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.model.checkpoint import load_model, save_model
from ownlm.model.transformer import Transformer

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(filled(Transformer(config())), tmp_path, IDS)
    return tmp_path


def header_of(folder: Path) -> tuple[dict, bytes]:
    data = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write(folder: Path, header: dict | bytes, data: bytes, size: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = struct.pack("<Q", len(text) if size is None else size)
    (folder / "model.safetensors").write_bytes(length + text + data)


@pytest.mark.parametrize("size", [2**63, 2**40, 200_000_000, 0, 1])
def test_a_header_of_absurd_size(folder, size):
    header, data = header_of(folder)
    write(folder, header, data, size)
    with pytest.raises(Refused, match="safetensors"):
        load_model(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"[1, 2]", b'{"a": 1}', b"\xff\xfe" * 40, b"[" * 50_000])
def test_a_header_that_is_no_header(folder, text):
    write(folder, text, b"\0" * 64)
    with pytest.raises(Refused, match="safetensors"):
        load_model(folder)


@pytest.mark.parametrize(
    "offsets",
    [lambda b, e: [b - 64, e], lambda b, e: [b, e + 10**12], lambda b, e: [e, b], lambda b, e: [b, e - 4],
     lambda b, e: [-8, e], lambda b, e: [b + 4, e + 4]],
)  # fmt: skip
def test_offsets_that_overlap_leave_gaps_or_leave_the_file(folder, offsets):
    header, data = header_of(folder)
    names = [name for name in header if name != "__metadata__"]
    entry = header[sorted(names, key=lambda n: header[n]["data_offsets"])[3]]
    entry["data_offsets"] = offsets(*entry["data_offsets"])
    write(folder, header, data)
    with pytest.raises(Refused, match="safetensors"):
        load_model(folder)


def test_a_file_that_is_cut_off(folder):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    for length in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(Refused, match="safetensors"):
            load_model(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_hidden_layers", 10**9), ("num_hidden_layers", -1), ("num_hidden_layers", "many"), ("hidden_size", 10**12),
     ("vocab_size", 0), ("vocab_size", 10**15), ("num_attention_heads", 0), ("num_attention_heads", 3),
     ("head_dim", 7), ("intermediate_size", 1.5), ("max_position_embeddings", None), ("rms_norm_eps", "tiny"),
     ("rms_norm_eps", 1e300), ("tie_word_embeddings", "yes"), ("layer_types", ["full_attention"] * 99),
     ("rope_parameters", [1, 2]), ("rope_parameters", {"rope_type": ["x"]}), ("rope_parameters", {"rope_theta": "big"}),
     ("rope_parameters", {"rope_type": "linear", "factor": 0}), ("rope_parameters", {"rope_type": "linear", "factor": "2"}),
     ("rope_parameters", {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4})],
)  # fmt: skip
def test_numbers_that_make_no_model(folder, field, value):
    file = folder / "config.json"
    content = json.loads(file.read_text())
    if field == "num_hidden_layers":
        content.pop("layer_types")
    if field == "layer_types":
        content |= {"use_sliding_window": True, "sliding_window": 4}
    file.write_text(json.dumps(content | {field: value}))
    with pytest.raises(Refused):
        load_model(folder)


def test_a_config_that_is_no_config(folder):
    file = folder / "config.json"
    for text in (
        "",
        "[]",
        "null",
        '"x"',
        "{",
        "[" * 100_000,
        '{"model_type": ["qwen3"]}',
        '{"model_type": {}}',
    ):
        file.write_text(text)
        with pytest.raises(Refused):
            load_model(folder)


def test_weights_that_are_no_numbers(folder):
    model = filled(Transformer(config()))
    for value in (float("nan"), float("inf"), float("-inf")):
        model.blocks[1].mlp.up_proj.weight.data[3, 4] = value
        save_model(model, folder, IDS)
        with pytest.raises(Refused, match=r"layers\.1\.mlp\.up_proj\.weight holds 1 values"):
            load_model(folder)


def test_large_weights_are_numbers(folder):
    """A sum of weights may overflow without any of them being infinite."""
    model = filled(Transformer(config()))
    model.blocks[0].mlp.up_proj.weight.data.fill_(3e38)
    save_model(model, folder, IDS)
    load_model(folder)


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors/..", "model.bin", 7, None],
)
def test_an_index_that_points_elsewhere(folder, name):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(Refused, match="index|file"):
        load_model(folder)


def test_an_index_whose_file_is_missing(folder):
    (folder / "model.safetensors").unlink()
    content = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="model-00001-of-00002"):
        load_model(folder)


def test_an_index_that_is_none(folder):
    (folder / "model.safetensors").unlink()
    for text in ("", "[]", "{}", '{"weight_map": []}', '{"weight_map": 3}'):
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(Refused, match="index"):
            load_model(folder)


def test_pickled_weights_are_never_opened(folder):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (folder / "executed",))

    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(Refused, match=r"pickled weights.*pytorch_model\.bin"):
        load_model(folder)
    assert not (folder / "executed").exists()


def test_a_quantised_file(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(Refused, match=r"up_proj.weight has the dtype int8"):
        load_model(folder)


def test_every_refusal_says_where(folder):
    (folder / "config.json").write_text("{}")
    with pytest.raises(OwnlmError) as error:
        load_model(folder)
    assert str(folder) in str(error.value)
