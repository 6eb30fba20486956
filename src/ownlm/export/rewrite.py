"""Writing a model folder anew, tensor by tensor: another dtype, other shards. No model is built, so it works for
every architecture, and memory is one shard.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownlm.console.errors import Refused
from ownlm.json_files import read_object
from ownlm.model.checkpoint import SHARD_BYTES, all_finite, read_config, write_json, write_weights
from ownlm.model.stored import FLOATS, StoredWeights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# What travels with the weights. Never code, never pickles, nothing of a run's checkpoints.
COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "vocab.txt", "merges.txt", "encoder.json", "vocab.bpe", "generation_config.json",
    "chat_template.jinja",
    "LICENSE*", "NOTICE*", "USE_POLICY*",
)  # fmt: skip


def rewrite(
    source: Path,
    target: Path,
    dtype: str | None,
    shard_bytes: int = SHARD_BYTES,
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Copy a model folder with its weights in another dtype or in other shards.

    Args:
        source: a Hugging Face folder with safetensors weights.
        target: an existing, empty folder.
        dtype: of the weights that are floating-point numbers; None: as they are.
        shard_bytes: see `write_weights`.
        change: gives what is stored in place of a tensor, by its name.

    Returns:
        What was done: tensors, bytes, dtype, largest change of a weight, hash of the source's weights.

    Raises:
        Refused: a weight that the dtype cannot hold.
    """
    content = read_config(source)
    if dtype is not None and content.get("quantization_config"):
        raise Refused(
            "its weights are quantised: whole numbers have no other dtype.",
            where=source,
            why="What was rounded does not come back.",
            do=f"--dtype {dtype} with the unquantised model",
        )
    wanted = None if dtype is None else DTYPES[dtype]
    digest = hashlib.sha256()
    largest = 0.0
    with StoredWeights(source) as stored:
        entries = stored.entries
        sizes = {}
        for name, entry in sorted(entries.items()):
            kept = entry.dtype if wanted is None or entry.dtype not in FLOATS else wanted
            sizes[name] = (entry.end - entry.begin) // entry.dtype.itemsize * kept.itemsize

        def read(name: str) -> Tensor:
            nonlocal largest
            tensor = stored.read(name)
            digest.update(name.encode())
            if tensor.numel():
                digest.update(memoryview(tensor.view(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
            if change is not None:
                tensor = change(name, tensor)
            if wanted is None or tensor.dtype not in FLOATS or tensor.dtype == wanted:
                return tensor
            changed = tensor.to(wanted)
            if not all_finite(changed) and all_finite(tensor):
                raise Refused(
                    f"{name} holds {tensor.abs().max():.3g}, more than {dtype} can hold.",
                    where=source,
                    do="--dtype bfloat16",
                )
            if tensor.numel():
                largest = max(largest, float((tensor.float() - changed.float()).abs().max()))
            return changed

        write_weights(target, sizes, read, shard_bytes)
        total = sum(sizes.values())
    for file in companions(source):
        shutil.copyfile(file, target / file.name)
    if (source / "run.json").is_file():
        # What it was taught stays known; `last` and the list of runs must not take it for another run.
        run = read_object(source / "run.json")
        write_json(target / "run.json", run | {"exported": True})
    if dtype is not None:
        content["dtype"] = dtype
        content.pop("torch_dtype", None)
    write_json(target / "config.json", content)  # last: a folder without it is no model
    return {
        "tensors": len(sizes),
        "bytes": total,
        "dtype": dtype,
        "largest_change": largest,
        "source_sha256": digest.hexdigest(),
    }


def companions(source: Path) -> list[Path]:
    """The files that travel with the weights.

    Raises:
        Refused: one is a link out of the folder: what it points to would be handed on.
    """
    found = sorted({file for name in COMPANIONS for file in source.glob(name) if file.is_file()})
    for file in found:
        refuse_outside(source, file)
    return found


def refuse_outside(source: Path, file: Path) -> None:
    """Refuse a file that lies elsewhere; the links of the shared cache, into the same repository, are none."""
    folder = source.resolve()
    home = folder.parent.parent if folder.parent.name == "snapshots" else folder
    if not file.resolve().is_relative_to(home):
        raise Refused(
            f"is a link out of the folder, to {file.resolve()}.",
            where=file,
            why="An export hands on what it finds.",
            do="a copy of the file in place of the link",
        )
