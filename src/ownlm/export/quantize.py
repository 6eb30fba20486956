"""A causal model as a folder of whole numbers: int8 or int4 weights in groups, written tensor by tensor.

The layout is that of `ownlm.engine.quantized`, the values are those that quantising at load gives, to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from ownlm.console.errors import Refused
from ownlm.engine.quantized import (
    BITS,
    GROUP,
    SCALE,
    Quantized,
    dequantize,
    named_entries,
    quantization_config,
    quantize,
    quantized_names,
    stored_form,
    stored_weights,
)
from ownlm.export.rewrite import companions
from ownlm.json_files import read_object
from ownlm.model.checkpoint import SHARD_BYTES, read_config, write_json
from ownlm.model.config import ModelConfig
from ownlm.model.encoder_families import is_masked
from ownlm.model.families import from_hugging_face, to_hf_name
from ownlm.model.fields import NotNative
from ownlm.model.head_families import head_kind
from ownlm.model.stored import DTYPES, INDEX, SINGLE
from ownlm.model.transformer import Transformer
from ownlm.model.weights_hash import weights_sha256

AT_ONCE = 2**20  # weights that are turned into whole numbers together: bounds the memory beside the tensor
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_DO = "--dtype bfloat16"


class Place(NamedTuple):
    """What a tensor will be: its dtype and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def quantize_folder(source: Path, target: Path, dtype: str, shard_bytes: int = SHARD_BYTES) -> dict[str, Any]:
    """Write a model folder with weights in whole numbers; memory is one tensor and a few buffers.

    Args:
        source: a Hugging Face folder with a causal model of a built-in family, in floats.
        target: an existing, empty folder.
        dtype: "int8" or "int4".
        shard_bytes: of one file at most, but for a larger tensor.

    Returns:
        What was done: tensors, bytes, dtype, largest change of a weight, hash of the source's weights.

    Raises:
        Refused: quantised already, or a model that the engine does not compute in whole numbers.
    """
    content = read_config(source)
    config = quantizable(source)
    bits = BITS[dtype]
    places = _places(config, bits)
    largest = 0.0
    with _files(target, places, shard_bytes) as write:
        for name, tensor in stored_weights(source, in_turn=True):
            assert isinstance(tensor, Tensor), "a quantised source was refused"
            theirs = to_hf_name(name, config.architecture)
            if theirs + SCALE not in places:
                write(theirs, 0, tensor.float())
                continue
            rows = max(1, AT_ONCE // tensor.shape[1])
            for first in range(0, len(tensor), rows):
                part = tensor[first : first + rows].float()
                found = quantize(part, bits)
                _refuse_overflow(found, theirs, source)
                for entry, values in named_entries(theirs, found).items():
                    write(entry, first, values)
                largest = max(largest, float((dequantize(found) - part).abs().max()))
    for file in companions(source):
        shutil.copyfile(file, target / file.name)
    if (source / "run.json").is_file():
        run = read_object(source / "run.json") | {"exported": True}
        for measured in ("result", "scores"):  # figures of other weights
            run.pop(measured, None)
        write_json(target / "run.json", run)
    write_json(target / "config.json", content | {"quantization_config": quantization_config(bits)})
    return {
        "tensors": len(places),
        "bytes": sum(place.bytes for place in places.values()),
        "dtype": dtype,
        "largest_change": largest,
        "source_sha256": weights_sha256(source),
    }


def quantizable(source: Path) -> ModelConfig:
    """The config of a folder whose weights can become whole numbers.

    Raises:
        Refused: they are quantised already, or nothing here computes the model with such weights.
    """
    content = read_config(source)
    if content.get("quantization_config"):
        raise Refused(
            "its weights are quantised already.",
            where=source,
            why="Rounding them again makes them worse.",
            do="the unquantised model",
        )
    head = head_kind(content)
    if is_masked(content) or head is not None:
        what = "a masked model" if head is None else "a model with a task head"
        why = "int8 and int4 are for models that continue text: the engine computes with them."
        raise Refused(f"{what}.", where=source, why=why, do=_DO)
    try:
        return from_hugging_face(content, source / "config.json")
    except NotNative as refusal:
        why = f"Only built-in architectures compute with whole numbers. {refusal.why or ''}".strip()
        raise Refused(refusal.what, where=source / "config.json", why=why, do=_DO) from None


def _places(config: ModelConfig, bits: int) -> dict[str, Place]:
    """Name in the files -> what will be there, in the order of the files: whole words first, so that all are aligned."""
    with torch.device("meta"):
        parameters = dict(Transformer(config).named_parameters())
    whole = quantized_names(config)
    floats, scales, values = {}, {}, {}
    for name, parameter in parameters.items():
        theirs = to_hf_name(name, config.architecture)
        if name not in whole:
            floats[theirs] = Place(torch.float32, tuple(parameter.shape))
            continue
        outputs, inputs = parameter.shape
        shape, dtype = stored_form(parameter.shape, bits)
        scales[theirs + SCALE] = Place(torch.float16, (outputs, -(-inputs // GROUP)))
        values[theirs] = Place(dtype, shape)
    return floats | scales | values


def _refuse_overflow(found: Quantized, name: str, source: Path) -> None:
    if not bool(torch.isfinite(found.scales).all()):
        raise Refused(
            f"{name} holds weights too large for a float16 scale.", where=source, do="--dtype bfloat16"
        )


# ---- safetensors files that are filled in any order


@contextmanager
def _files(
    target: Path, places: Mapping[str, Place], shard_bytes: int
) -> Iterator[Callable[[str, int, Tensor], None]]:
    """Files for these tensors; gives a function that writes (name, first row, rows). They get their names at the end.

    https://github.com/huggingface/safetensors#format
    """
    shards = _shards(places, shard_bytes)
    count = len(shards)
    names = (
        [SINGLE] if count == 1 else [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    )
    begins: dict[str, tuple[BinaryIO, int]] = {}

    def write(name: str, first: int, rows: Tensor) -> None:
        stream, begin = begins[name]
        place = places[name]
        assert rows.dtype == place.dtype
        stream.seek(begin + first * (place.bytes // place.shape[0]))
        stream.write(memoryview(rows.contiguous().view(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]

    with ExitStack() as stack:
        streams = {}
        for file, members in zip(names, shards):
            stream = streams[file] = stack.enter_context((target / f"{file}.tmp").open("wb"))
            header, offsets = _header({name: places[name] for name in members})
            stream.write(header)
            begins |= {name: (stream, len(header) + offset) for name, offset in offsets.items()}
        yield write
        for stream in streams.values():
            stream.flush()
            os.fsync(stream.fileno())
    for file in names:
        (target / f"{file}.tmp").replace(target / file)
    if count > 1:
        weight_map = {name: file for file, members in zip(names, shards) for name in members}
        total = sum(place.bytes for place in places.values())
        write_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(places: Mapping[str, Place], shard_bytes: int) -> list[list[str]]:
    """Names of each file; a file gets another tensor only while it stays below the size."""
    shards: list[list[str]] = [[]]
    held = 0
    for name, place in places.items():
        if shards[-1] and held + place.bytes > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += place.bytes
    return shards


def _header(places: Mapping[str, Place]) -> tuple[bytes, dict[str, int]]:
    """A file's header, and where each tensor begins after it."""
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offsets, at = {}, 0
    for name, place in places.items():
        offsets[name] = at
        content[name] = {
            "dtype": _CODES[place.dtype],
            "shape": list(place.shape),
            "data_offsets": [at, at + place.bytes],
        }
        at += place.bytes
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offsets
