"""A base and its adapter as one model folder: low-rank changes added to the weights, tensor by tensor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ownlm.console.errors import Refused
from ownlm.export.rewrite import DTYPES, companions, rewrite
from ownlm.json_files import read_object
from ownlm.model.checkpoint import SHARD_BYTES, read_config, stored_dtype, write_json
from ownlm.model.encoder_checkpoint import load_encoder
from ownlm.model.encoder_families import is_masked
from ownlm.model.families import from_hugging_face
from ownlm.model.heads_checkpoint import save_headed
from ownlm.model.layer_names import hugging_face_names, stored_prefix, stored_transposed
from ownlm.model.lora_apply import headed_base, is_headed, merge_into
from ownlm.model.lora_files import Adapter, Change
from ownlm.model.stored import StoredWeights
from ownlm.model.transformer import Transformer
from ownlm.model.weights_hash import weights_sha256

_IDS = ("bos_token_id", "eos_token_id")


def merge(
    adapter: Adapter, base: Path, target: Path, dtype: str | None, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Write a base with the changes of an adapter in its weights, as a model folder of its own.

    Sums are float32, and are stored in the base's dtype or in `dtype`. Tokenizer, chat template and what the model was
    taught are the adapter's where its folder has them.

    Args:
        base: a folder with safetensors weights in floats.
        target: an existing, empty folder.
        dtype, shard_bytes: see `rewrite`.

    Returns:
        What `rewrite` returns, and the base.

    Raises:
        NotNative: an architecture that is not built in. Refused: the adapter does not fit, or the base is quantised.
    """
    content = read_config(base)
    if content.get("quantization_config"):
        raise Refused(
            "the base is quantised: a change would be rounded away in its weights.",
            where=base,
            do='the unquantised base, named as "base_model_name_or_path" in adapter_config.json',
        )
    if is_headed(adapter):
        done = _merge_headed(adapter, base, target, dtype, shard_bytes)
    else:
        done = _rewrite_changed(adapter, base, target, dtype, shard_bytes)
    for file in companions(adapter.folder):
        shutil.copyfile(file, target / file.name)
    # The base's, from `rewrite`: what the base was taught is not what this model does.
    (target / "run.json").unlink(missing_ok=True)
    if (adapter.folder / "run.json").is_file():
        run = read_object(adapter.folder / "run.json")
        run.pop("base_sha256", None)
        write_json(target / "run.json", run | {"exported": True})
    return done | {"merged_into": str(base)}


def _rewrite_changed(
    adapter: Adapter, base: Path, target: Path, dtype: str | None, shard_bytes: int
) -> dict[str, Any]:
    model = _skeleton(base)
    left, transposed = _stored_changes(adapter, model, base), stored_transposed(model)

    def changed(name: str, tensor: Tensor) -> Tensor:
        found = left.pop(name, None)
        if found is None:
            return tensor
        change = found.up @ found.down * found.scale
        summed = tensor.float() + (change.T if transposed else change)
        return summed if dtype is not None else summed.to(tensor.dtype)

    done = rewrite(base, target, dtype, shard_bytes, changed)
    assert not left, "every change was added"
    return done


def _skeleton(base: Path) -> nn.Module:
    """The base as names and shapes."""
    content = read_config(base)
    if is_masked(content):
        return load_encoder(base)
    config = from_hugging_face(content, base / "config.json")
    with torch.device("meta"):
        return Transformer(config)


def _stored_changes(adapter: Adapter, model: nn.Module, base: Path) -> dict[str, Change]:
    """Name of a tensor in the base's files -> what is added to it."""
    names, prefix = hugging_face_names(model), stored_prefix(model)
    adapter.fitted_whole(model)
    with StoredWeights(base) as stored:
        entries = set(stored.entries)
    found = {}
    for ours, change in adapter.fitted(model).items():
        name = f"{names[ours]}.weight"
        places = [one for one in (name, name.removeprefix(prefix), prefix + name) if one in entries]
        if not places:
            raise Refused(f"the weight {name} is missing.", where=base)
        found[places[0]] = change
    return found


def _merge_headed(
    adapter: Adapter, base: Path, target: Path, dtype: str | None, shard_bytes: int
) -> dict[str, Any]:
    """A base that gets a task head: its own head is left out, so a model is built."""
    content = read_config(base)
    held = stored_dtype(content)
    model = headed_base(adapter, base, dtype=held)
    merge_into(model, adapter)
    ids = {name: content[name] for name in _IDS if content.get(name) is not None}
    save_headed(model, target, ids, DTYPES[dtype] if dtype else held, shard_bytes)
    for file in companions(base):
        shutil.copyfile(file, target / file.name)
    with StoredWeights(target) as stored:
        count, size = len(stored.entries), stored.bytes
    return {
        "tensors": count,
        "bytes": size,
        "dtype": dtype,
        "largest_change": 0.0,
        "source_sha256": weights_sha256(base),
    }
