"""The two forms in which a task is learnt: as text that the model writes, or as a head on its hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ownlm.corpus.tokenizer import Tokenizer
from ownlm.engine.int8_base import open_int8, quantize_base
from ownlm.headed_inputs import HeadInputs
from ownlm.headed_training import HeadExample
from ownlm.machine.cpu import give_freed_memory_back
from ownlm.model.checkpoint import load_model, save_model
from ownlm.model.heads import HeadConfig, HeadModel
from ownlm.model.heads_checkpoint import load_headed, new_head, save_headed
from ownlm.model.lora import LoraSettings, add_lora
from ownlm.model.lora_apply import fill
from ownlm.model.lora_files import read_adapter, save_adapter
from ownlm.model.transformer import Transformer
from ownlm.seeds import derive
from ownlm.tasks.items import Item
from ownlm.tasks.measure import Reader
from ownlm.tasks.problems import Problems
from ownlm.training.checkpoint import Weights, WholeModel, token_ids
from ownlm.training.plan import TrainPlan
from ownlm.training.tuning.labelled import LabelModel, examples_of, labelled_text, packs
from ownlm.training.tuning.texts import Counted, Overlong, Text, texts_of

Example = Text | HeadExample


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        folder: of the model. base: what an adapter names as its base.
        plan: of the run. lora: adapters; None: all weights are trained.
        int8: the frozen weights are held in int8.
    """

    folder: Path
    base: str
    plan: TrainPlan
    lora: LoraSettings | None
    int8: bool = False


class TextForm:
    """A task as text.

    Args:
        reader: of the model. task: of the rows.
        train_on: "answers", or "all" tokens.
    """

    packed = True
    head: HeadConfig | None = None

    def __init__(self, reader: Reader, task: str, train_on: Any) -> None:
        self.reader, self.task, self.train_on = reader, task, train_on
        self.tokenizer = reader.tokenizer

    def rows(
        self, items: Sequence[Item], problems: Problems, max_length: int, overlong: Overlong
    ) -> tuple[Sequence[Example], list[Item], Counted]:
        """(what is trained, the rows it comes from, what was counted)."""
        return texts_of(
            items, self.task, self.reader, problems,
            max_length=max_length, overlong=overlong, train_on=self.train_on,
        )  # fmt: skip

    def build(self, start: Start) -> tuple[nn.Module, Weights]:
        """The model that is trained, and how its weights are kept."""
        if start.int8:
            model = open_int8(start.folder, start.plan.device)
        else:
            model = load_model(start.folder, device=start.plan.device, dtype=torch.float32)
        _save_memory(model, start.plan)
        if start.lora is None:
            return model, WholeModel(model, token_ids(self.tokenizer))
        add_lora(model, start.lora, derive(start.plan.seed, "adapter"))
        return model, AdapterWeights(model, start.lora, start.base)

    def write(self, model: Any, run: Path) -> None:
        """All weights, as a model folder."""
        save_model(model, run, token_ids(self.tokenizer))


class LabelForm:
    """A task as a head.

    Args:
        folder: of the model below it.
        tokenizer: with the rule of how texts stand in a row.
        head: kind and labels.
        headed: a model with it, which says how it can be trained.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, headed: HeadModel) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.head, self.config = headed.head_config, headed.config
        self.packed = packs(headed)
        self.inputs = HeadInputs(tokenizer, headed.context)

    def rows(
        self, items: Sequence[Item], problems: Problems, max_length: int, overlong: Overlong
    ) -> tuple[Sequence[Example], list[Item], Counted]:
        """See `TextForm.rows`."""
        inputs = HeadInputs(self.tokenizer, max_length)
        found, kept, counted = examples_of(
            items, inputs, self.head, problems, max_length=max_length, overlong=overlong
        )
        if self.packed:
            return [labelled_text(example, self.head) for example in found], kept, counted
        return found, kept, counted

    def build(self, start: Start) -> tuple[nn.Module, Weights]:
        """See `TextForm.build`."""
        headed = headed_model(start.folder, self.head, start.plan.seed, start.plan.device)
        _save_memory(headed.backbone, start.plan)
        weights: Weights = HeadWeights(headed, self.tokenizer)
        if start.int8:
            quantize_base(headed)
        if start.lora is not None:
            add_lora(headed, start.lora, derive(start.plan.seed, "adapter"))
            weights = AdapterWeights(headed, start.lora, start.base)
        return LabelModel(headed) if self.packed else headed, weights

    def write(self, model: Any, run: Path) -> None:
        """See `TextForm.write`."""
        headed = model.headed if isinstance(model, LabelModel) else model
        save_headed(headed.eval(), run, token_ids(self.tokenizer))


def headed_model(folder: Path, head: HeadConfig, seed: int, device: str) -> HeadModel:
    """The model of a folder under a head, new weights from the seed; its own where it is the same one already."""
    from ownlm.model.checkpoint import read_config
    from ownlm.model.head_families import head_kind

    if head_kind(read_config(folder)) == head.kind:
        there = load_headed(folder, device)
        if there.labels == head.labels:
            return there
    return new_head(
        folder, head.kind, head.labels, derive(seed, "head"), pad_token_id=head.pad_token_id, device=device
    )


def _save_memory(model: nn.Module, plan: TrainPlan) -> None:
    if isinstance(model, Transformer):
        model.gradient_checkpointing = plan.gradient_checkpointing
    if plan.gradient_checkpointing and plan.device == "cpu":
        give_freed_memory_back()


class HeadWeights:
    """All weights of a model with a head."""

    def __init__(self, model: HeadModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def save(self, folder: Path) -> None:
        """As a model folder."""
        save_headed(self.model, folder, token_ids(self.tokenizer), dtype=torch.float32)

    def load(self, folder: Path) -> None:
        """See `Weights`."""
        device = next(self.model.parameters()).device
        self.model.load_state_dict(load_headed(folder, device).state_dict())


class AdapterWeights:
    """The adapter of a model, as PEFT writes it.

    Args:
        base: folder or name of the frozen model.
    """

    def __init__(self, model: nn.Module, settings: LoraSettings, base: str) -> None:
        self.model, self.settings, self.base = model, settings, base

    def save(self, folder: Path) -> None:
        """As an adapter folder."""
        save_adapter(self.model, folder, self.settings, self.base)

    def load(self, folder: Path) -> None:
        """See `Weights`."""
        fill(self.model, read_adapter(folder))


def lengths(examples: Sequence[Example]) -> np.ndarray:
    """Tokens of each."""
    return np.array([len(example.ids) for example in examples], np.int64)
