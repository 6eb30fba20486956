"""A model folder as a GGUF file, for llama.cpp beside ours: the same weights as F32, F16, Q8_0 or Q4_0.

    pip install gguf
    python bench/gguf_file.py FOLDER OUT.gguf --type q8_0

Every linear, the embedding and the head get the type; norms, biases and learned positions stay F32, as in files of
llama.cpp's own quantize. The vocabulary is a stub: ids go in, logits come out. Layouts: gpt2, llama, qwen2, qwen3.
Runs without torch, in the Python of the peer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TYPES = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
ARCHITECTURES = {
    "gpt2": gguf.MODEL_ARCH.GPT2, "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3,
}  # fmt: skip
GPT2_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # stored [in, out] there


def tensors(folder: Path) -> Iterator[tuple[str, Array]]:
    """(name, fp32 values) of model.safetensors: 8 bytes of length, a JSON header, the data."""
    file = folder / "model.safetensors"
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(size))
    data = np.memmap(file, np.uint8, "r", offset=8 + size)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[begin:end]
        if entry["dtype"] == "BF16":
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view({"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
        yield name, values.reshape(entry["shape"])


def interleaved(weight: Array, heads: int) -> Array:
    """Rows of a query or key matrix in the order that llama.cpp rotates for llama: pairs side by side."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
    return rows.swapaxes(1, 2).reshape(weight.shape)


def converted(name: str, values: Array, config: dict[str, Any]) -> Array:
    """A tensor as llama.cpp has it: [out, in]."""
    kind = config["model_type"]
    if kind == "gpt2" and name.endswith(GPT2_TRANSPOSED):
        return np.ascontiguousarray(values.T)
    if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
        return interleaved(values, config[heads])
    return values


def describe(writer: gguf.GGUFWriter, config: dict[str, Any]) -> int:
    """The fields that llama.cpp needs; gives the number of layers."""
    if config["model_type"] == "gpt2":
        width, layers, heads = config["n_embd"], config["n_layer"], config["n_head"]
        writer.add_context_length(config["n_positions"])
        writer.add_feed_forward_length(config.get("n_inner") or 4 * width)
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        width, layers, heads = (
            config[f] for f in ("hidden_size", "num_hidden_layers", "num_attention_heads")
        )
        head = config.get("head_dim") or width // heads
        rope = config.get("rope_parameters") or config
        if rope.get("rope_type", "default") != "default" or config.get("rope_scaling"):
            sys.exit("stretched rotary frequencies are not written")
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_rope_dimension_count(head)
        writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_vocab_size(config["vocab_size"])
    return int(layers)


def add_vocabulary(writer: gguf.GGUFWriter, folder: Path) -> None:
    """The tokens of a byte-level BPE, for programs that want text; ours has its special tokens first."""
    spec = json.loads((folder / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in spec["added_tokens"]}
    tokens = sorted((spec["model"]["vocab"] | special).items(), key=lambda entry: entry[1])
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token, _ in tokens]
    merges = [one if isinstance(one, str) else " ".join(one) for one in spec["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def write(folder: Path, target: Path, kind: str, vocabulary: bool = False) -> dict[str, int]:
    """Write the file; gives the bytes of each type of tensor."""
    config = json.loads((folder / "config.json").read_text())
    architecture = ARCHITECTURES[config["model_type"]]
    wanted = gguf.GGMLQuantizationType[TYPES[kind]]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_file_type(gguf.LlamaFileType[("ALL_" if kind == "f32" else "MOSTLY_") + TYPES[kind]])
    names = gguf.get_tensor_name_map(architecture, describe(writer, config))
    if vocabulary:
        add_vocabulary(writer, folder)
    else:
        writer.add_tokenizer_model("no_vocab")
    sizes: dict[str, int] = {}
    for theirs, values in tensors(folder):
        name = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if name is None:
            sys.exit(f"{theirs}: GGUF has no place for it")
        values = converted(theirs, values, config)
        matrix = values.ndim == 2 and not name.startswith("position_embd")
        if matrix and values.shape[1] % 32 and kind.startswith("q"):
            sys.exit(f"{theirs}: rows of {values.shape[1]} weights are no whole groups of 32")
        own = wanted if matrix else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(values, own)
        writer.add_tensor(name, data, raw_dtype=own)
        sizes[own.name] = sizes.get(own.name, 0) + data.nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sizes


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--type", choices=TYPES, required=True)
    parser.add_argument("--vocabulary", action="store_true", help="with the tokens of tokenizer.json")
    options = parser.parse_args()
    print(json.dumps(write(options.folder, options.target, options.type, options.vocabulary)))


if __name__ == "__main__":
    main()
