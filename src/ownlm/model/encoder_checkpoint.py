"""Weights of BERT, RoBERTa and DistilBERT to and from a Hugging Face folder; what was read is written again, nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ownlm.console.errors import Refused
from ownlm.model.checkpoint import (
    FP32_LIMIT,
    SHARD_BYTES,
    checked_places,
    read_config,
    read_weights,
    refuse_other_copy,
    write_json,
    write_weights,
)
from ownlm.model.encoder import Encoder
from ownlm.model.encoder_families import (
    MASKED_FAMILIES,
    MaskedFamily,
    encoder_config,
    encoder_hf_name,
    encoder_to_hugging_face,
    is_masked,
)
from ownlm.model.fields import NotNative
from ownlm.model.stored import StoredWeights


def load_encoder(
    folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Encoder:
    """Open a folder as an `Encoder` in eval mode.

    Which heads it has follows from the weights. Names of the first release (LayerNorm.gamma and .beta) are read.

    Args:
        dtype: of the weights in memory; None: float32.

    Raises:
        UsageError: no model there. NotNative: a field that is not built in. Refused: missing or misshapen
            weights, names that do not belong, NaN, a tied head with another matrix than the embedding.
    """
    folder = Path(folder)
    content = read_config(folder)
    if not is_masked(content):
        raise NotNative(f'the architecture "{content.get("model_type")}" is not built in.', where=folder)
    kind = str(content["model_type"])
    family = MASKED_FAMILIES[kind]
    with StoredWeights(folder) as stored:
        rename_old(stored, family)
        config = encoder_config(content, folder / "config.json", **_parts(stored, content, family))
        with torch.device("meta"):
            model = Encoder(config)
        model = model.to(dtype or torch.float32)
        wanted = {encoder_hf_name(name, kind): (name, p) for name, p in model.named_parameters()}
        ignored = [no_weights(family)]
        if config.head and config.tie_word_embeddings:
            _check_tied(stored, family)
            ignored += [re.escape(copy) for copy in family.copies]
        places = checked_places(
            stored, {name: p for name, (_, p) in wanted.items()}, ignored, prefix=family.prefix
        )
        for name, tensor in read_weights(stored, places, dtype or torch.float32, set(), device):
            _set(model, wanted[name][0], tensor)
    return model.eval()


def _set(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, last = name.rpartition(".")
    model.get_submodule(path).register_parameter(last, nn.Parameter(tensor))


def no_weights(family: MaskedFamily) -> str:
    """Pattern of stored names that hold nothing learnt: 0, 1, 2, … and zeros."""
    return rf"{family.prefix}embeddings\.(position_ids|token_type_ids)"


def rename_old(stored: StoredWeights, family: MaskedFamily) -> None:
    """Stored names as they are today."""
    for name in list(stored.entries):
        today = name
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            today = today.removesuffix(old) + new if today.endswith(old) else today
        if today != name:
            if today in stored.entries:
                raise Refused(f"{name} and {today} are the same weight, stored twice.", where=stored.folder)
            stored.entries[today] = stored.entries.pop(name)
    # The two biases of an untied head were one tensor before transformers 5: files of that time hold one name.
    both = (family.names["head.bias"], family.names.get("head.decoder.bias", ""))
    if both[1] and family.names["head.decoder.weight"] in stored.entries:
        for missing, there in (both, both[::-1]):
            if missing not in stored.entries and there in stored.entries:
                stored.entries[missing] = stored.entries[there]


def _parts(stored: StoredWeights, content: Mapping[str, Any], family: MaskedFamily) -> dict[str, bool]:
    """Which heads there are: what is stored, and what the class promises (a missing weight is then named)."""
    said = [str(name) for name in content.get("architectures") or []]
    promised = any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in said)
    names = stored.entries
    return {
        "head": promised or any(name.startswith(family.head) for name in names),
        "pooler": any(name.removeprefix(family.prefix).startswith("pooler.") for name in names),
        "next_sentence": any(name.startswith("cls.seq_relationship.") for name in names),
    }


def _check_tied(stored: StoredWeights, family: MaskedFamily) -> None:
    """A stored copy of a tied weight must be one: another matrix would be dropped without a word."""
    for copy, original in family.copies.items():
        refuse_other_copy(stored, copy, family.names[original])


def save_encoder(
    model: Encoder,
    folder: Path,
    special_ids: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json and the weights of an `Encoder` as a Hugging Face folder.

    Args:
        special_ids: bos/eos token ids for config.json.
        dtype: of the stored weights; None: fp32 up to 350M parameters, else bf16.
        shard_bytes: weights above this size become several files with an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if dtype is None:
        dtype = torch.float32 if model.num_parameters() <= FP32_LIMIT else torch.bfloat16
    config = model.config
    prefix = "" if config.head else MASKED_FAMILIES[config.architecture].prefix  # the bare model has none
    parameters = {
        encoder_hf_name(name, config.architecture).removeprefix(prefix): p
        for name, p in model.named_parameters()
    }
    sizes = {name: p.numel() * dtype.itemsize for name, p in parameters.items()}
    write_weights(folder, sizes, lambda name: parameters[name].detach().to("cpu", dtype), shard_bytes)
    content = encoder_to_hugging_face(config, special_ids or {})
    write_json(folder / "config.json", content | {"dtype": str(dtype).removeprefix("torch.")})
