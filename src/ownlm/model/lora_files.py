"""Adapter folders in the format of the library PEFT: adapter_config.json and adapter_model.safetensors.

Matrices are named `base_model.model.` + the layer's Hugging Face name + `.lora_A.weight` [r, K] or `.lora_B.weight`
[O, r]; modules that are stored whole (task heads) by their own names behind the same prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from ownlm.console.errors import Refused, UsageError
from ownlm.model.checkpoint import all_finite, save_tensors, write_json
from ownlm.model.heads import HeadModel
from ownlm.model.heads_checkpoint import headed_to_hugging_face
from ownlm.model.int8 import Int8Linear
from ownlm.model.layer_names import (
    body_of,
    hugging_face_names,
    stored_prefix,
    stored_transposed,
    whole_modules,
    whole_parts,
)
from ownlm.model.lora import LoraLinear, LoraSettings, is_ending, lora_layers
from ownlm.model.lora_config import CONFIG, AdapterConfig, adapter_config, read_adapter_config
from ownlm.model.stored import FLOATS, StoredWeights
from ownlm.model.transformer import Transformer

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
_MATRIX = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")


class Change(NamedTuple):
    """The low-rank change of one layer: s · B A, with A float32 [r, K] and B float32 [O, r]."""

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter folder that was read, checked against itself.

    Args:
        folder: where it lies.
        config: its adapter_config.json.
        changes: Hugging Face name of the layer, as stored -> its change.
        modules: Hugging Face name of a parameter of the modules that are stored whole -> values, float32.
    """

    folder: Path
    config: AdapterConfig
    changes: dict[str, Change]
    modules: dict[str, Tensor]

    def fitted(self, model: nn.Module) -> dict[str, Change]:
        """Our names of a model's layers -> their changes, checked against the layers' shapes.

        Raises:
            Refused: a layer that the model's blocks do not have, or matrices of another shape.
        """
        theirs = {name: ours for ours, name in hugging_face_names(model).items()}
        prefix = stored_prefix(model)
        found: dict[str, Change] = {}
        for name, change in self.changes.items():
            # The bare model's names, as its adapters have them, leave the prefix out.
            ours = theirs.get(name) or theirs.get(prefix + name) or theirs.get(name.removeprefix(prefix))
            if ours is None:
                known = sorted({one.rsplit(".", 1)[-1] for one in theirs})
                self.refuse(
                    f"it changes {name[:100]}, which the blocks of the base do not have.",
                    f"They have {', '.join(known)}.",
                )
            layer = model.get_submodule(ours)
            assert isinstance(layer, nn.Linear | Int8Linear | LoraLinear)
            shape = (change.up.shape[0], change.down.shape[1])
            if shape != (layer.out_features, layer.in_features):
                want = [layer.out_features, layer.in_features]
                self.refuse(f"it changes {name[:100]} as a matrix {list(shape)}; in the base it is {want}.")
            found[ours] = change
        return found

    def fitted_whole(self, model: nn.Module) -> dict[str, Tensor]:
        """Our names of the parameters of a model's task head -> their values.

        Raises:
            Refused: modules that the model does not have, or not whole, or in another shape.
        """
        wanted = {theirs: ours for ours, theirs in whole_parts(model).items()}
        for name in sorted(self.modules.keys() ^ wanted.keys()):
            if name in wanted:
                self.refuse(f"{name} is missing, which belongs to the model's head.", "")
            self.refuse(
                f"it replaces {name[:100]}.",
                "Beside low-rank changes of blocks only task heads are replaced.",
            )
        found = {ours: self.modules[theirs] for theirs, ours in wanted.items()}
        for ours, values in found.items():
            shape = list(model.get_parameter(ours).shape)
            if list(values.shape) != shape:
                self.refuse(f"{ours} is {list(values.shape)}; in the model it is {shape}.", "")
        return found

    def refuse(self, what: str, why: str = "It belongs to another base.") -> NoReturn:
        raise Refused(what, where=self.folder / WEIGHTS, why=why)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, not a whole model."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder.

    Raises:
        UsageError: no adapter there. Refused: a damaged file, another method, matrices without their other half,
            of another rank than the config says, values that are no numbers, names that do not belong.
    """
    config = read_adapter_config(folder)
    halves: dict[str, dict[str, Tensor]] = {}
    modules: dict[str, Tensor] = {}
    with _AdapterFile(folder) as stored:
        for name, entry in stored.entries.items():
            if not name.startswith(PREFIX) or entry.dtype not in FLOATS:
                _refuse_tensor(folder, name, config)
            tensor = stored.read(name).float()
            if not all_finite(tensor):
                raise Refused(f"{name} holds values that are no numbers (NaN or infinity).", where=entry.file)
            short = name.removeprefix(PREFIX)
            if matrix := _MATRIX.fullmatch(short):
                halves.setdefault(matrix["layer"], {})[matrix["side"]] = tensor
            elif any(_belongs(short, module) for module in config.modules):
                modules[short] = tensor
            else:
                _refuse_tensor(folder, name, config)
    if not halves and not modules:
        raise Refused("it changes nothing: no matrices are stored.", where=folder / WEIGHTS)
    settings = config.for_layers(halves)
    changes = {name: _change(folder, name, sides, settings) for name, sides in halves.items()}
    return Adapter(folder, config._replace(settings=settings), changes, modules)


def _belongs(name: str, module: str) -> bool:
    """Whether a parameter is one of a module that is stored whole."""
    parts = name.split(".")
    return any(is_ending(".".join(parts[:count]), module) for count in range(1, len(parts)))


def _change(folder: Path, name: str, sides: Mapping[str, Tensor], settings: LoraSettings) -> Change:
    missing = {"A", "B"} - set(sides)
    if missing:
        raise Refused(f"{name}: lora_{missing.pop()} is missing.", where=folder / WEIGHTS)
    down, up, r = sides["A"], sides["B"], settings.rank_of(name)
    if down.ndim != 2 or up.ndim != 2 or len(down) != r or up.shape[1] != r:
        raise Refused(
            f"{name}: A is {list(down.shape)} and B {list(up.shape)}; {CONFIG} says rank {r}.",
            where=folder / WEIGHTS,
        )
    return Change(down, up, settings.scale_of(name))


def _refuse_tensor(folder: Path, name: str, config: AdapterConfig) -> NoReturn:
    why = "Low-rank matrices of linear layers are read, and the modules that modules_to_save names."
    if "lora_embedding_" in name:
        why = "Changes of embeddings are not supported."
    elif "lora_magnitude_vector" in name:
        why = "It is of DoRA, which is not supported."
    raise Refused(f"holds {name[:120]!r}.", where=folder / WEIGHTS, why=why)


class _AdapterFile(StoredWeights):
    """The one file of an adapter."""

    def _files(self) -> list[Path]:
        file = self.folder / WEIGHTS
        if file.is_file():
            return [file]
        pickled = sorted(path.name for path in self.folder.glob("adapter_model.*"))
        if pickled:
            raise Refused(
                f"holds only {', '.join(pickled[:3])}.",
                where=self.folder,
                why="A pickle can run any program when it is opened; only adapter_model.safetensors is read.",
                do="another revision with adapter_model.safetensors",
            )
        raise UsageError(
            "the adapter's weights are missing (no adapter_model.safetensors).", where=self.folder
        )


TASKS = {
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
}


def save_adapter(model: nn.Module, folder: Path, settings: LoraSettings, base: str) -> None:
    """Write the adapter of a model, and its task head, as PEFT does; each file under a temporary name first.

    Beside a task head stands config.json with the names of its labels.

    Args:
        settings: what `add_lora` was given.
        base: folder or name on the hub of the base.

    Raises:
        UsageError: the model has no adapter.
    """
    layers, names = lora_layers(model), hugging_face_names(model)
    if not layers:
        raise UsageError("the model has no low-rank adapter.", where="LoRA")
    tensors: dict[str, Tensor] = {}
    for ours, layer in layers.items():
        tensors[f"{names[ours]}.lora_A.weight"] = layer.lora_A
        tensors[f"{names[ours]}.lora_B.weight"] = layer.lora_B
    tensors |= {theirs: model.get_parameter(ours) for ours, theirs in whole_parts(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    held = {PREFIX + name: t.detach().to("cpu", torch.float32).contiguous() for name, t in tensors.items()}
    save_tensors(held, folder / WEIGHTS)
    content = adapter_config(
        settings,
        chosen=[names[ours] for ours in layers],
        names=names.values(),
        base=base,
        task_type=_task_type(model),
        modules=whole_modules(model),
        stored_transposed=stored_transposed(model),
    )
    write_json(folder / CONFIG, content)
    if isinstance(model, HeadModel):  # PEFT has no place for the names of labels
        write_json(folder / "config.json", headed_to_hugging_face(model, {}))


def _task_type(model: nn.Module) -> str | None:
    """PEFT's word for a model; it has none for masked ones."""
    if isinstance(model, HeadModel):
        return TASKS[model.kind]
    return "CAUSAL_LM" if isinstance(body_of(model), Transformer) else None
