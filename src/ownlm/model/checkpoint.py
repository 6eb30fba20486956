"""Weights to and from a Hugging Face folder: config.json and safetensors files. Nothing is ever pickled."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ownlm.console.errors import Refused, UsageError
from ownlm.json_files import read_object
from ownlm.model.config import ModelConfig
from ownlm.model.families import FAMILIES, from_hugging_face, is_transposed, to_hf_name, to_hugging_face
from ownlm.model.stored import FLOATS, INDEX, SINGLE, StoredWeights
from ownlm.model.transformer import Transformer

FP32_LIMIT = 350_000_000  # parameters up to which a finished run stores fp32; above it bf16 (DESIGN)
SHARD_BYTES = 5_000_000_000  # of one file, as transformers and the hub have it
MAX_CONFIG_BYTES = 16 * 2**20


def stored_as(model: Transformer) -> torch.dtype:
    """The dtype in which a finished run stores its weights."""
    return torch.float32 if model.num_parameters() <= FP32_LIMIT else torch.bfloat16


def save_model(
    model: Transformer,
    folder: Path,
    special_ids: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json and the weights, each file under a temporary name first.

    Args:
        special_ids: bos/eos/pad token ids for config.json.
        dtype: of the stored weights; None: fp32 up to 350M parameters, else bf16.
        shard_bytes: weights above this size become several files with an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if dtype is None:
        dtype = stored_as(model)
    content = to_hugging_face(model.config, dict(special_ids)) | {"dtype": str(dtype).removeprefix("torch.")}
    architecture = model.config.architecture
    parameters = {
        to_hf_name(name, architecture): p.T if is_transposed(name, architecture) else p
        for name, p in model.named_parameters()
    }
    sizes = {name: p.numel() * dtype.itemsize for name, p in parameters.items()}
    write_weights(folder, sizes, lambda name: parameters[name].detach().to("cpu", dtype), shard_bytes)
    write_json(folder / "config.json", content)


def write_weights(
    folder: Path, sizes: Mapping[str, int], read: Callable[[str], Tensor], shard_bytes: int = SHARD_BYTES
) -> None:
    """Tensors as one safetensors file, or as shards with an index; one shard is in memory at a time.

    Args:
        sizes: bytes of each tensor as it will be stored, in the order of the files.
        read: gives a tensor as it will be stored.
        shard_bytes: a file gets another tensor only while it stays below this size.
    """
    shards: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if shards[-1] and held + size > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += size
    count = len(shards)
    names = (
        [SINGLE] if count == 1 else [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    )
    for file, members in zip(names, shards):
        save_tensors({name: read(name).contiguous() for name in members}, folder / file)
    if count > 1:
        weight_map = {name: file for file, members in zip(names, shards) for name in members}
        write_json(
            folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        )
    _remove_others(folder, keep=names)


def _remove_others(folder: Path, keep: list[str]) -> None:
    """Weights that an earlier model left in this folder: two models in one would be read as one."""
    for path in folder.glob("model*.safetensors"):
        if path.name not in keep:
            path.unlink()
    if len(keep) == 1:
        (folder / INDEX).unlink(missing_ok=True)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file atomically: a kill leaves the old file or the new one, never a half."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # the library's own files can be read by their owner alone
        save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.chmod(mode)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        if "No space left" in str(error) or "os error 28" in str(error):
            raise OSError(28, os.strerror(28), str(path)) from error
        raise
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(path)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json.

    Raises:
        UsageError: there is none. Refused: it is no JSON object.
    """
    try:
        return read_object(folder / "config.json", MAX_CONFIG_BYTES)
    except FileNotFoundError:
        raise UsageError(
            "there is no model in this folder (no config.json).", where=folder, do="ownlm runs"
        ) from None


def stored_dtype(content: Mapping[str, Any]) -> torch.dtype:
    """bfloat16 when a config.json says so; else float32, which holds every value of float16 too."""
    named = content.get("dtype", content.get("torch_dtype"))
    return torch.bfloat16 if named == "bfloat16" else torch.float32


def load_config(folder: Path) -> ModelConfig:
    """The model config of a folder."""
    return from_hugging_face(read_config(folder), folder / "config.json")


def load_model(
    folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Transformer:
    """Open a folder as a `Transformer` in eval mode.

    Names, shapes and dtypes are checked in the files' headers before anything is allocated. Weights that are kept
    as they are stay in the file's memory map; others are read and changed one by one: peak memory is the model and
    one tensor.

    Args:
        dtype: of the weights in memory; None: float32.

    Raises:
        UsageError: no model there. Refused: missing or misshapen weights, names that do not belong, NaN.
    """
    folder = Path(folder)
    config = load_config(folder)
    family = FAMILIES[config.architecture]
    with torch.device("meta"):
        model = Transformer(config)
    model = model.to(dtype or torch.float32)
    wanted = {to_hf_name(name, config.architecture): (name, p) for name, p in model.named_parameters()}
    transposed = {name for name, (ours, _) in wanted.items() if is_transposed(ours, config.architecture)}
    ignored = [*family.no_weights, *([r"lm_head\.weight"] if config.tie_word_embeddings else [])]
    with StoredWeights(folder) as stored:
        if config.tie_word_embeddings:
            refuse_other_copy(
                stored, "lm_head.weight", to_hf_name("embedding.weight", config.architecture), family.prefix
            )
        places = checked_places(
            stored, {name: p for name, (_, p) in wanted.items()}, ignored, transposed, family.prefix
        )
        for name, tensor in read_weights(stored, places, dtype or torch.float32, transposed, device):
            _set(model, wanted[name][0], tensor)
    return model.eval()


def refuse_other_copy(stored: StoredWeights, copy: str, original: str, prefix: str = "") -> None:
    """Refuse a stored copy of a tied weight that is no copy: another matrix would be dropped without a word.

    Args:
        copy, original: names in the files. prefix: left out of `original` by checkpoints of the bare model.

    Raises:
        Refused: the two differ in shape, dtype or any value.
    """
    found = original if original in stored.entries else original.removeprefix(prefix)
    if copy not in stored.entries or found not in stored.entries:
        return
    one, other = stored.entries[copy], stored.entries[found]
    same = (one.shape, one.dtype) == (other.shape, other.dtype)
    if not same or not torch.equal(stored.mapped(copy), stored.mapped(found)):
        raise Refused(
            f"{copy} differs from {found}, and config.json says that they are one weight.",
            where=stored.folder,
            do='"tie_word_embeddings": false in config.json, if the head has a matrix of its own',
        )


def checked_places(
    stored: StoredWeights,
    wanted: Mapping[str, Tensor],
    ignored: list[str],
    transposed: set[str] = frozenset(),  # type: ignore[assignment]
    prefix: str = "",
) -> dict[str, str]:
    """Name a model wants → name in the files; both sides must match, in shape too.

    Args:
        wanted: names and (meta) tensors of the model.
        ignored: patterns of stored names that hold nothing learnt.
        transposed: wanted names stored [in, out].
        prefix: left out by checkpoints of the bare model.
    """
    bare = not any(name.startswith(prefix) for name in stored.entries)
    places = {name: name.removeprefix(prefix) if bare else name for name in wanted}
    missing = sorted(theirs for theirs in places.values() if theirs not in stored.entries)
    unknown = sorted(
        name
        for name in set(stored.entries) - set(places.values())
        if not any(re.fullmatch(pattern, (prefix if bare else "") + name) for pattern in ignored)
    )
    if missing or unknown:
        word, listed = ("missing", missing) if missing else ("unknown", unknown)
        raise Refused(f"{len(listed)} {word} weights, first: {listed[0]}.", where=stored.folder)
    for name, theirs in places.items():
        shape = list(wanted[name].shape)
        want, entry = shape[::-1] if name in transposed else shape, stored.entries[theirs]
        if list(entry.shape) != want:
            raise Refused(f"{theirs} is {list(entry.shape)}, the config wants {want}.", where=entry.file)
        if entry.dtype not in FLOATS:
            raise Refused(
                f"{theirs} has the dtype {str(entry.dtype).removeprefix('torch.')}: quantised weights are not read.",
                where=entry.file,
                do="the same model's unquantised files",
            )
    return places


def read_weights(
    stored: StoredWeights,
    places: Mapping[str, str],
    dtype: torch.dtype,
    transposed: set[str],
    device: torch.device | str,
) -> Iterator[tuple[str, Tensor]]:
    """(wanted name, tensor) one after the other, in the order in which they lie in the files."""
    order = sorted(
        places, key=lambda name: (stored.entries[places[name]][0], stored.entries[places[name]].begin)
    )
    for name in order:
        entry = stored.entries[places[name]]
        if entry.dtype == dtype and name not in transposed:
            tensor = stored.mapped(places[name]).to(device)
        else:
            tensor = stored.read(places[name])
            tensor = (tensor.T if name in transposed else tensor).to(device=device, dtype=dtype).contiguous()
        _refuse_nan(tensor, places[name], entry.file)
        yield name, tensor


def all_finite(tensor: Tensor) -> bool:
    """Whether every value is a number.

    One NaN or infinity makes the sum one: a pass at the speed of memory. A sum may also overflow: then a slow look.
    """
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _refuse_nan(tensor: Tensor, name: str, file: Path) -> None:
    if not all_finite(tensor):
        count = int((~torch.isfinite(tensor)).sum())
        raise Refused(
            f"{name} holds {count:,} values that are no numbers (NaN or infinity).",
            where=file,
            why="Every answer of the model would be one too.",
            do="fetch the model again, or take an earlier checkpoint",
        )


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a parameter."""
    *path, last = name.split(".")
    for part in path:
        module = getattr(module, part)
    module.register_parameter(last, nn.Parameter(tensor))
