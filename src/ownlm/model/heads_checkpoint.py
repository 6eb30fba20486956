"""Models with a task head to and from a Hugging Face folder, and new heads on models without one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ownlm.console.errors import Refused, UsageError
from ownlm.model.checkpoint import (
    FP32_LIMIT,
    SHARD_BYTES,
    checked_places,
    load_model,
    read_config,
    read_weights,
    write_json,
    write_weights,
)
from ownlm.model.config import ModelConfig
from ownlm.model.encoder import EncoderConfig
from ownlm.model.encoder_checkpoint import load_encoder, no_weights, rename_old
from ownlm.model.encoder_families import (
    MASKED_FAMILIES,
    encoder_config,
    encoder_to_hugging_face,
    is_masked,
)
from ownlm.model.families import FAMILIES, from_hugging_face, is_transposed, to_hugging_face
from ownlm.model.fields import NotNative
from ownlm.model.head_families import (
    DOES,
    HeadKind,
    head_form,
    head_hf_name,
    head_kind,
    is_encoder,
)
from ownlm.model.heads import PROBLEMS, HeadConfig, HeadModel
from ownlm.model.stored import StoredWeights

MAX_LABELS = 1_000_000


def load_headed(
    folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> HeadModel:
    """Open a folder as a `HeadModel` in eval mode.

    Args:
        dtype: of the weights in memory; None: float32.

    Raises:
        UsageError: no model there. NotNative: a class or field that is not built in. Refused: missing or misshapen
            weights, names that do not belong, labels that do not fit, NaN.
    """
    folder = Path(folder)
    content = read_config(folder)
    kind = head_kind(content)
    if kind is None:
        named = (content.get("architectures") or ["no class"])[0]
        raise NotNative(f"{named} has no task head that is built in.", where=folder, why="Heads: " + _known())
    architecture = str(content["model_type"])
    with StoredWeights(folder) as stored:
        config = _body_config(content, folder / "config.json", stored)
        with torch.device("meta"):
            model = HeadModel(config, read_head_config(content, kind, folder / "config.json"))
        model = model.to(dtype or torch.float32)
        wanted = {head_hf_name(n, architecture, kind): (n, p) for n, p in model.named_parameters()}
        transposed = {theirs for theirs, (ours, _) in wanted.items() if _is_transposed(ours, architecture)}
        tensors = {theirs: p for theirs, (_, p) in wanted.items()}
        places = checked_places(stored, tensors, _ignored(architecture), transposed)
        for name, tensor in read_weights(stored, places, dtype or torch.float32, transposed, device):
            _set(model, wanted[name][0], tensor)
    return model.eval()


def _known() -> str:
    return "; ".join(f"{kind} ({does[:-1].lower()})" for kind, does in DOES.items()) + "."


def _body_config(content: dict[str, Any], where: Path, stored: StoredWeights) -> ModelConfig | EncoderConfig:
    """The body's config; a pooler that was stored without need is kept."""
    if not is_masked(content):
        return from_hugging_face(content, where)
    family = MASKED_FAMILIES[str(content["model_type"])]
    rename_old(stored, family)
    pooler = f"{family.prefix}pooler.dense.weight" in stored.entries
    return encoder_config({**content, "architectures": []}, where, head=False, pooler=pooler)


def _ignored(architecture: str) -> list[str]:
    if is_encoder(architecture):
        return [no_weights(MASKED_FAMILIES[architecture])]
    return list(FAMILIES[architecture].no_weights)


def _is_transposed(name: str, architecture: str) -> bool:
    """Whether the family stores this weight of a `HeadModel` [in, out]."""
    if is_encoder(architecture) or not name.startswith("backbone."):
        return False
    return is_transposed(name.removeprefix("backbone."), architecture)


def read_head_config(content: Mapping[str, Any], kind: HeadKind, where: object) -> HeadConfig:
    """What a config.json says of its head.

    Raises:
        Refused: labels that are not numbered 0, 1, 2, …, or fields that make no sense.
    """
    architecture = str(content["model_type"])
    problem = content.get("problem_type")
    if problem not in (None, *PROBLEMS):
        raise Refused(f"problem_type is {str(problem)[:60]!r}; known: {', '.join(PROBLEMS)}.", where=where)
    pad = content.get(
        "pad_token_id", MASKED_FAMILIES[architecture].pad_token_id if is_masked(content) else None
    )
    if pad is not None and (not isinstance(pad, int) or isinstance(pad, bool)):
        raise Refused(f"pad_token_id is {str(pad)[:60]!r}, a whole number is expected.", where=where)
    return HeadConfig(
        kind, _labels(content, where), problem, _dropout(content, architecture, kind, where), pad
    )


def _labels(content: Mapping[str, Any], where: object) -> tuple[str, ...]:
    """Names of the labels; as in transformers two of them, LABEL_0 and LABEL_1, where nothing is said."""
    named, count = content.get("id2label"), content.get("num_labels", content.get("_num_labels"))
    if named is None:
        if count is not None and (not isinstance(count, int) or not 1 <= count <= MAX_LABELS):
            raise Refused(f"num_labels is {str(count)[:60]!r}.", where=where)
        return tuple(f"LABEL_{index}" for index in range(2 if count is None else count))
    try:
        found = {int(index): str(label) for index, label in named.items()}
    except (AttributeError, TypeError, ValueError):
        found = {}
    if not found or sorted(found) != list(range(len(found))):
        raise Refused(
            f"id2label is {str(named)[:80]}: names of the labels 0, 1, 2, … are expected.", where=where
        )
    return tuple(found[index] for index in range(len(found)))


def _dropout(content: Mapping[str, Any], architecture: str, kind: HeadKind, where: object) -> float:
    fields = head_form(architecture, kind).dropout_fields
    name = next((name for name in fields if content.get(name) is not None), None)
    value = 0.0 if name is None else content[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise Refused(f"{name} is {str(value)[:60]!r}, a share below 1 is expected.", where=where)
    return float(value)


def new_head(
    folder: Path | str,
    kind: HeadKind,
    labels: Sequence[str],
    seed: int,
    *,
    pad_token_id: int | None = None,
    problem_type: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> HeadModel:
    """The body of a model under a new head, in eval mode; the head that it had is left out.

    Args:
        folder: a causal or masked model, its body alone, or a model with another head.
        labels: names of the labels; () for question answering.
        seed: of the random stream that fills the head (and BERT's pooler, where the folder has none).
        pad_token_id: of the tokenizer beside it; a masked model has its own.
        dtype: of the weights in memory; None: float32.

    Raises:
        UsageError: no model there; no labels, or a label twice. NotNative: a model that is not built in.
        Refused: transformers has no such class for this family; damaged.
    """
    folder = Path(folder)
    content = read_config(folder)
    if not is_masked(content) and content.get("model_type") not in FAMILIES:
        from_hugging_face(content, folder / "config.json")  # says what is not built in
    architecture = str(content["model_type"])
    form = head_form(architecture, kind)
    body = _body(folder, content, device, dtype)
    if is_masked(content):
        pad_token_id = body.config.pad_token_id
    dropout = _dropout(content, architecture, kind, folder / "config.json")
    head = HeadConfig(kind, _checked_labels(kind, labels, problem_type), problem_type, dropout, pad_token_id)
    config = body.config
    if isinstance(config, EncoderConfig):
        config = dataclasses.replace(config, pooler=False)
    else:
        config = from_hugging_face(content, folder / "config.json")
    with torch.device("meta"):
        model = HeadModel(config, head)
    held = dict(body.named_parameters())
    new = set()
    for name, parameter in list(model.named_parameters()):
        own = held.get(name.removeprefix("backbone.")) if name.startswith("backbone.") else None
        if own is None:
            new.add(name)
            own = torch.empty(parameter.shape, dtype=dtype or torch.float32, device=device)
        _set(model, name, own.detach())
    assert form.pooler or all(name.startswith("head.") for name in new), "only heads and poolers are new"
    model.init_head(seed, new)
    return model.eval()


def _body(
    folder: Path, content: Mapping[str, Any], device: torch.device | str, dtype: torch.dtype | None
) -> Any:
    """The stored body as a `Transformer` or `Encoder`, whatever head it has."""
    if head_kind(content) is not None:
        return load_headed(folder, device, dtype).backbone
    if is_masked(content):
        return load_encoder(folder, device, dtype)
    return load_model(folder, device, dtype)


def _checked_labels(kind: HeadKind, labels: Sequence[str], problem_type: str | None) -> tuple[str, ...]:
    if kind == "question-answering":
        return ("LABEL_0", "LABEL_1")
    if not labels or (len(labels) < 2 and kind == "sequence-classification" and problem_type is None):
        raise UsageError(
            f"{len(labels)} label{'s' * (len(labels) != 1)}: there is nothing to choose between.",
            where="labels",
            do="data with at least two labels",
        )
    twice = sorted({label for label in labels if list(labels).count(label) > 1})
    if twice:
        raise UsageError(f"the label {twice[0]!r} is there twice.", where="labels")
    return tuple(labels)


def save_headed(
    model: HeadModel,
    folder: Path,
    special_ids: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json and the weights of a `HeadModel` as a Hugging Face folder.

    Args:
        special_ids: bos/eos token ids for config.json; the padding token is the model's own.
        dtype: of the stored weights; None: fp32 up to 350M parameters, else bf16.
        shard_bytes: weights above this size become several files with an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if dtype is None:
        dtype = torch.float32 if model.num_parameters() <= FP32_LIMIT else torch.bfloat16
    architecture, kind = model.config.architecture, model.kind
    parameters = {
        head_hf_name(name, architecture, kind): p.T if _is_transposed(name, architecture) else p
        for name, p in model.named_parameters()
    }
    sizes = {name: p.numel() * dtype.itemsize for name, p in parameters.items()}
    write_weights(folder, sizes, lambda name: parameters[name].detach().to("cpu", dtype), shard_bytes)
    content = headed_to_hugging_face(model, special_ids or {})
    write_json(folder / "config.json", content | {"dtype": str(dtype).removeprefix("torch.")})


def headed_to_hugging_face(model: HeadModel, special_ids: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a `HeadModel`."""
    config, head = model.config, model.head_config
    if isinstance(config, EncoderConfig):
        content = encoder_to_hugging_face(config, special_ids)
    else:
        content = to_hugging_face(config, dict(special_ids))
    form = head_form(config.architecture, head.kind)
    content |= {"architectures": [form.hf_class], "pad_token_id": head.pad_token_id}
    if head.kind != "question-answering":
        content["id2label"] = {str(index): label for index, label in enumerate(head.labels)}
        content["label2id"] = {label: index for index, label in enumerate(head.labels)}
    if head.problem_type is not None:
        content["problem_type"] = head.problem_type
    if form.dropout_fields:
        content[form.dropout_fields[0]] = head.dropout
    return content


def _set(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, last = name.rpartition(".")
    model.get_submodule(path).register_parameter(last, nn.Parameter(tensor))
