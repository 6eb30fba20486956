"""An adapter folder on its base in memory: beside the layers for training, or in their weights."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from ownlm.console.errors import Refused
from ownlm.model.checkpoint import read_config
from ownlm.model.head_families import HeadKind, head_form, head_kind
from ownlm.model.heads import HeadModel
from ownlm.model.heads_checkpoint import load_headed, new_head, read_head_config
from ownlm.model.layer_names import hugging_face_names
from ownlm.model.lora import LoraSettings, add_change, add_lora, lora_layers
from ownlm.model.lora_files import TASKS, WEIGHTS, Adapter


def attach(model: nn.Module, adapter: Adapter, dropout: float | None = None) -> list[nn.Parameter]:
    """Put an adapter beside the layers of its base, ready to be trained on.

    Args:
        model: the base; it is frozen.
        dropout: see `LoraSettings`; None: as the adapter was trained.

    Returns:
        What `add_lora` gives: all that is trained.

    Raises:
        Refused: it does not fit the model. UsageError: the model has an adapter already.
    """
    changes = adapter.fitted(model)
    adapter.fitted_whole(model)
    names, given = hugging_face_names(model), adapter.config.settings
    settings = LoraSettings(
        r=given.r,
        alpha=given.alpha,
        dropout=given.dropout if dropout is None else dropout,
        rslora=given.rslora,
        target_modules=tuple(names[ours] for ours in changes),
        ranks={names[ours]: len(change.down) for ours, change in changes.items()},
    )
    parameters = add_lora(model, settings, 0)
    fill(model, adapter)
    return parameters


@torch.no_grad()
def fill(model: nn.Module, adapter: Adapter) -> None:
    """Put the values of an adapter into a model that has the same low-rank layers, such as an interrupted run's.

    Raises:
        Refused: other layers or ranks.
    """
    changes, layers = adapter.fitted(model), lora_layers(model)
    for ours in sorted(changes.keys() ^ layers.keys()):
        adapter.refuse(f"the model and the adapter do not change the same layers: {ours}.", "")
    for ours, layer in layers.items():
        if len(changes[ours].down) != len(layer.lora_A):
            adapter.refuse(
                f"{ours} has rank {len(changes[ours].down)}, in the model {len(layer.lora_A)}.", ""
            )
        layer.lora_A.copy_(changes[ours].down)
        layer.lora_B.copy_(changes[ours].up)
        layer.scale = changes[ours].scale
    for ours, values in adapter.fitted_whole(model).items():
        model.get_parameter(ours).copy_(values)


def merge_into(model: nn.Module, adapter: Adapter) -> None:
    """Put the changes of an adapter into the weights of its base, in float32 sums; see `add_change`.

    Raises:
        Refused: it does not fit the model.
    """
    whole = adapter.fitted_whole(model)
    for ours, change in adapter.fitted(model).items():
        layer = model.get_submodule(ours)
        assert isinstance(layer, nn.Linear)
        add_change(layer, change.down, change.up, change.scale)
    for ours, values in whole.items():
        path, _, last = ours.rpartition(".")
        old = model.get_parameter(ours)
        made = nn.Parameter(values.to(old.device, old.dtype), old.requires_grad)
        model.get_submodule(path).register_parameter(last, made)


def is_headed(adapter: Adapter) -> bool:
    """Whether an adapter brings a task head."""
    return adapter.config.task_type in TASKS.values()


def headed_base(
    adapter: Adapter, base: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> HeadModel:
    """The base of an adapter under the task head that it belongs to, in eval mode; the head is still to be filled.

    Args:
        base: folder of a causal or masked model, its body alone, or a model with such a head.
        dtype: of the weights in memory; None: float32.

    Raises:
        Refused: the head's matrix is missing, or the family has no such head.
    """
    kind = cast(HeadKind, next(ours for ours, theirs in TASKS.items() if theirs == adapter.config.task_type))
    content, where = read_config(base), base
    if head_kind(content) == kind:
        return load_headed(base, device, dtype)
    output = head_form(str(content.get("model_type")), kind).output
    matrix = adapter.modules.get(f"{output}.weight")
    if matrix is None or matrix.ndim != 2:
        raise Refused(f"the task head ({output}.weight) is missing.", where=adapter.folder / WEIGHTS)
    if (adapter.folder / "config.json").is_file():
        content, where = read_config(adapter.folder), adapter.folder
        if head_kind(content) != kind:
            raise Refused(f"config.json and adapter_config.json name different heads ({kind}).", where=where)
    head = read_head_config(content, kind, where / "config.json")
    count = len(matrix)
    labels = head.labels if len(head.labels) == count else tuple(f"LABEL_{i}" for i in range(count))
    problem = head.problem_type or ("regression" if count == 1 else None)
    return new_head(
        base,
        kind,
        labels,
        0,
        pad_token_id=head.pad_token_id,
        problem_type=problem if kind == "sequence-classification" else None,
        device=device,
        dtype=dtype,
    )
