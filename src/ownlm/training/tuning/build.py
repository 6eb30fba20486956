"""From examples and a start to a `Trainer`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ownlm.corpus.batches import TokenRows
from ownlm.headed_training import HeadExample
from ownlm.training.fused import FusedGradients
from ownlm.training.loop import Trainer
from ownlm.training.optimizer import Optimizer
from ownlm.training.plan import TrainPlan
from ownlm.training.tuning.forms import Example, LabelForm, Start, TextForm
from ownlm.training.tuning.head_trainer import HeadRows, HeadTrainer
from ownlm.training.tuning.measuring import sample_of
from ownlm.training.tuning.packed import Packed
from ownlm.training.tuning.texts import Text

Form = TextForm | LabelForm


def source_of(form: Form, examples: Sequence[Example], plan: TrainPlan) -> Packed | HeadRows:
    """The rows of each step."""
    if form.packed:
        texts = cast(Sequence[Text], examples)
        return Packed(texts, plan.context, plan.rows_per_step, plan.seed, form.tokenizer)
    return HeadRows(cast(Sequence[HeadExample], examples), plan.rows_per_step, plan.seed)


def trainer_of(
    form: Form, start: Start, source: Packed | HeadRows, held_out: Sequence[Example], run: Path
) -> Trainer:
    """Model, optimizer, rows and plan together, at step 0."""
    plan = start.plan
    torch.set_num_threads(plan.threads)
    built, weights = form.build(start)
    model: Any = built
    dtype = torch.bfloat16 if plan.dtype == "bfloat16" else torch.float32
    muon = plan.muon_learning_rate or None  # 0: AdamW trains everything
    optimizer = Optimizer(model, plan.learning_rate, muon, plan.weight_decay, dtype)
    lengths = (
        form.tokenizer.token_byte_lengths.astype("int64") if form.head is None else np.zeros(0, np.int64)
    )
    common: dict[str, Any] = {
        "model": model, "optimizer": optimizer, "plan": plan, "batches": source, "run": run, "weights": weights,
        "byte_lengths": torch.from_numpy(lengths).to(plan.device),
    }  # fmt: skip
    if isinstance(source, HeadRows):
        most = plan.eval_rows * plan.per_device_train_batch_size
        drawn = sample_of(cast(Sequence[HeadExample], held_out), most, plan.seed)  # files are sorted by label
        return HeadTrainer(**common, held_out=drawn)
    return Trainer(
        **common,
        gradients=FusedGradients(model, optimizer.iteration_dtype) if plan.fused else None,
        validation=_validation(form, cast(Sequence[Text], held_out), plan),
    )


def _validation(form: Form, held_out: Sequence[Text], plan: TrainPlan) -> TokenRows | None:
    """The first windows of held-out texts; None without any."""
    texts = [text for text in held_out if len(text.ids) <= plan.context]
    if not texts:
        return None
    packed = Packed(texts, plan.context, 1, plan.seed, form.tokenizer)
    return packed.windows_of(range(min(plan.eval_rows, packed.windows)))


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 of the ids that are read and of what is trained of them, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(len(example.ids).to_bytes(8, "little"))
        digest.update(np.asarray(example.ids, "<i4").tobytes())
        digest.update(np.asarray(example.targets, "<i4").tobytes())
    return digest.hexdigest()
