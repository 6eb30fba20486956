"""Adapter folders opened for use: the base in memory once, its adapters beside it.

Causal models keep their adapters unmerged in one engine, each request names its own. Masked models and task heads, which
have no engine, get the changes in their weights.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ownlm.adapter_bases import base_of, refuse_other_base, tokenizer_of
from ownlm.answer_form import stop_ids
from ownlm.console.errors import Refused, UsageError, did_you_mean
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.engine.adapted import AdaptedEngine
from ownlm.engine.backend import LoraWeights
from ownlm.engine.native_backend import NativeBackend
from ownlm.engine.opening import torch_model
from ownlm.engine.torch_backend import chosen_dtype
from ownlm.headed import HeadedModel
from ownlm.loaded import LoadedModel, load, read_run, resolve
from ownlm.locate import holds_adapter
from ownlm.model.checkpoint import read_config, stored_dtype
from ownlm.model.lora_apply import headed_base, is_headed, merge_into
from ownlm.model.lora_config import CONFIG, read_adapter_config
from ownlm.model.lora_files import Adapter, read_adapter
from ownlm.model.transformer import Transformer

if TYPE_CHECKING:
    from ownlm.masked import MaskedModel

Named = str | os.PathLike[str]
Model = TypeVar("Model", bound=nn.Module)


class AdaptedModel(LoadedModel):
    """A causal model and an adapter beside it; the engine is the base's, and so are cache and queue.

    Args:
        base: the model without it.
        adapter: what was read.
        tokenizer: text to ids and back.
    """

    def __init__(self, base: LoadedModel, adapter: Adapter, tokenizer: Tokenizer) -> None:
        self.base, self.weights = base, adapter
        rows = base.engine.backend.vocab_size
        if tokenizer.vocab_size > rows:
            raise Refused(
                f"its tokenizer has {tokenizer.vocab_size:,} tokens, the base {rows:,}.",
                where=adapter.folder,
                why="They do not belong together.",
            )
        number = base.engine.add_adapter(lora_weights(adapter, base))
        super().__init__(
            adapter.folder, read_run(adapter.folder), tokenizer, AdaptedEngine(base.engine, number)
        )

    def __repr__(self) -> str:
        return (
            f"LoadedModel({str(self.path)!r}, adapter of {str(self.base.path)!r}, context {self.context:,})"
        )

    @cached_property
    def adapters(self) -> dict[str, LoadedModel]:
        """The base's: all share one engine."""
        return self.base.adapters

    @cached_property
    def model(self) -> Transformer:
        """The weights as a torch model, the adapter's changes in them."""
        backend: Any = self.engine.backend
        if isinstance(backend, NativeBackend):
            dtype = torch.bfloat16 if backend.dtype == "bfloat16" else torch.float32
            found = torch_model(self.base.path, "cpu", dtype)
        else:
            found = same_weights(backend.model)
        merge_into(found, self.weights)
        return found

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: of the adapter's folder where that says it."""
        says = (self.path / "generation_config.json").is_file()
        folder = self.path if says else self.base.path
        return stop_ids(folder, self.tokenizer, self.engine.backend.vocab_size)


def same_weights(model: Model) -> Model:
    """Another model with the very same tensors, in which some can be replaced."""
    return copy.deepcopy(model, {id(p): p for p in (*model.parameters(), *model.buffers())})


def lora_weights(adapter: Adapter, base: LoadedModel) -> LoraWeights:
    """An adapter as the engine takes it.

    Raises:
        Refused: it does not fit the base, brings a task head, or transformers runs the base.
    """
    config = getattr(base.engine.backend, "config", None)
    if config is None:
        raise Refused(
            "an adapter of a model that is not built in.",
            where=adapter.folder,
            why=f"transformers runs {base.path}.",
            do="merge it with peft: PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(DST)",
        )
    with torch.device("meta"):
        shapes = Transformer(config)
    adapter.fitted_whole(shapes)
    changes = adapter.fitted(shapes)
    matrices = {ours: (c.down.numpy(), (c.up * c.scale).numpy()) for ours, c in changes.items()}
    return LoraWeights(matrices, scale=1.0)


def load_adapter(
    path: Path, *, device: str, dtype: str, max_context: int | None, backend: str | None
) -> LoadedModel:
    """Open an adapter folder with its base; see `ownlm.load`.

    Raises:
        Refused: damaged, of another base, or of a kind that is not built in. UsageError: the base is not there.
    """
    config = read_adapter_config(path)
    base = base_of(path, config)
    refuse_other_base(path, base)
    adapter = read_adapter(path)
    if is_headed(adapter):
        tokenizer = tokenizer_of(path, base)
        return _headed(adapter, base, tokenizer, device=device, dtype=dtype, max_context=max_context)
    loaded = load(base, device=device, dtype=dtype, max_context=max_context, backend=backend)
    return _beside(loaded, adapter, _name(path))


def with_adapters(loaded: LoadedModel, adapters: Sequence[Named] | Mapping[str, Named]) -> LoadedModel:
    """Put adapters beside a model in memory; `with_adapter` gives each by its name.

    Args:
        adapters: folders, named by the last part of their paths; or name -> folder.
    """
    named = adapters if isinstance(adapters, Mapping) else {_name(Path(one)): one for one in adapters}
    if len(named) < len(adapters):
        raise UsageError("two folders have the same name.", where="adapters", do='{"one": DIR, "two": DIR}')
    for name, folder in named.items():
        if name in loaded.adapters:
            raise UsageError(f"there is an adapter {name!r} already.", where="adapters")
        _add(loaded, name, folder)
    return loaded


def with_adapter(loaded: LoadedModel, adapter: Named) -> LoadedModel:
    """The model with one of its adapters, by name; or with another one, by folder.

    Raises:
        UsageError: neither. Refused: it does not fit.
    """
    name = os.fspath(adapter)
    if name in loaded.adapters:
        return loaded.adapters[name]
    if not holds_adapter(Path(name)) and isinstance(adapter, str) and loaded.adapters:
        known = list(loaded.adapters)
        raise UsageError(
            f"no adapter {name!r}.{did_you_mean(name, known)}",
            where="adapter",
            why=f"There are {', '.join(known)}.",
        )
    return _add(loaded, _name(Path(name)), adapter)


def _add(loaded: LoadedModel, name: str, folder: Named) -> LoadedModel:
    base = loaded.base if isinstance(loaded, AdaptedModel) else loaded
    path = resolve(folder)
    if not holds_adapter(path):
        raise UsageError("holds no adapter.", where=path, why=f"There is no {CONFIG} in it.")
    refuse_other_base(path, base.path)
    return _beside(base, read_adapter(path), name)


def _name(path: Path) -> str:
    return path.resolve().name


def _beside(base: LoadedModel, adapter: Adapter, name: str) -> LoadedModel:
    """An adapter beside its base in memory, entered under a name."""
    from ownlm.masked import MaskedModel

    tokenizer = tokenizer_of(adapter.folder, base.path)
    made: LoadedModel
    if is_headed(adapter):  # its numbers come from the torch model, so the weights are read for it
        device = (
            base.device if isinstance(base, MaskedModel | HeadedModel) else str(base.engine.backend.device)
        )
        made = _headed(adapter, base.path, tokenizer, device=device, max_context=base.context)
    elif isinstance(base, MaskedModel):
        made = _masked(base, adapter, tokenizer)
    else:
        made = AdaptedModel(base, adapter, tokenizer)
    base.adapters[name] = made
    return made


def _headed(
    adapter: Adapter,
    base: Path,
    tokenizer: Tokenizer,
    *,
    device: str,
    dtype: str = "auto",
    max_context: int | None = None,
) -> HeadedModel:
    """A base with the adapter's changes in its weights, under the adapter's task head."""
    held = chosen_dtype(dtype, stored_dtype(read_config(base)), torch.device(device))
    model = headed_base(adapter, base, device, held)
    merge_into(model, adapter)
    folder = adapter.folder
    return HeadedModel(folder, read_run(folder), tokenizer, model, device=device, max_context=max_context)


def _masked(base: MaskedModel, adapter: Adapter, tokenizer: Tokenizer) -> MaskedModel:
    """A masked model with the changes in its weights; the others are the base's own."""
    from ownlm.masked import MaskedModel
    from ownlm.model.encoder import Encoder

    if not isinstance(base.scorer, Encoder):
        raise Refused("an adapter of a model that is not built in.", where=adapter.folder)
    scorer = same_weights(base.scorer)
    merge_into(scorer, adapter)
    folder, window = adapter.folder, base.max_context
    return MaskedModel(folder, read_run(folder), tokenizer, scorer, device=base.device, max_context=window)
