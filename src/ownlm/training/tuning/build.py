"""From texts and a start model to a `Trainer`: all weights, or adapters on frozen ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ownlm.corpus.batches import TokenRows
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.machine.cpu import give_freed_memory_back
from ownlm.model.checkpoint import load_model
from ownlm.model.lora import LoraSettings, add_lora, lora_layers
from ownlm.model.lora_files import read_adapter, save_adapter
from ownlm.model.transformer import Transformer
from ownlm.seeds import derive
from ownlm.training.checkpoint import Weights, WholeModel, token_ids
from ownlm.training.fused import FusedGradients
from ownlm.training.loop import Trainer
from ownlm.training.optimizer import Optimizer
from ownlm.training.plan import TrainPlan
from ownlm.training.tuning.packed import Packed
from ownlm.training.tuning.texts import Text


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
        adapter, layers = read_adapter(folder), lora_layers(self.model)
        with torch.no_grad():
            for name, change in adapter.fitted(self.model).items():
                layers[name].lora_A.copy_(change.down)
                layers[name].lora_B.copy_(change.up)
            for name, values in adapter.fitted_whole(self.model).items():
                self.model.get_parameter(name).copy_(values)


def start_model(
    folder: Path, plan: TrainPlan, lora: LoraSettings | None, base: str, tokenizer: Tokenizer
) -> tuple[Transformer, Weights]:
    """The model that is trained, and how its weights are kept."""
    model = load_model(folder, device=plan.device, dtype=torch.float32)
    model.gradient_checkpointing = plan.gradient_checkpointing
    if plan.gradient_checkpointing and plan.device == "cpu":
        give_freed_memory_back()
    if lora is None:
        return model, WholeModel(model, token_ids(tokenizer))
    add_lora(model, lora, derive(plan.seed, "adapter"))
    return model, AdapterWeights(model, lora, base)


def optimizer_for(model: nn.Module, plan: TrainPlan, muon: bool) -> Optimizer:
    """Muon and AdamW, or AdamW alone."""
    return Optimizer(
        model,
        plan.learning_rate,
        plan.muon_learning_rate if muon else None,
        plan.weight_decay,
        torch.bfloat16 if plan.dtype == "bfloat16" else torch.float32,
    )


def text_trainer(
    model: Transformer,
    weights: Weights,
    plan: TrainPlan,
    packed: Packed,
    validation: TokenRows | None,
    run: Path,
    *,
    muon: bool,
) -> Trainer:
    """Model, optimizer, rows and plan together, at step 0."""
    optimizer = optimizer_for(model, plan, muon)
    lengths = packed.tokenizer.token_byte_lengths.astype("int64")
    return Trainer(
        gradients=FusedGradients(model, optimizer.iteration_dtype) if plan.fused else None,
        model=model,
        optimizer=optimizer,
        plan=plan,
        batches=packed,
        byte_lengths=torch.from_numpy(lengths).to(plan.device),
        run=run,
        weights=weights,
        validation=validation,
    )


def validation_rows(packed: Packed | None, most: int) -> TokenRows | None:
    """The first windows of held-out texts, at most so many; None without any."""
    if packed is None or not packed.windows:
        return None
    return packed.windows_of(range(min(most, packed.windows)))


def data_hash(texts: Sequence[Text]) -> str:
    """SHA-256 of the ids that are read and of what is trained of them, in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text.ids).to_bytes(8, "little"))
        digest.update(text.ids.astype("<i4").tobytes())
        digest.update(text.trained.tobytes())
    return digest.hexdigest()
