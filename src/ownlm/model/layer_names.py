"""What the layers that adapters change, and the parts that are trained whole beside them, are called elsewhere."""

from __future__ import annotations

from torch import nn

from ownlm.model.encoder import Encoder
from ownlm.model.encoder_families import MASKED_FAMILIES, encoder_hf_name
from ownlm.model.families import FAMILIES, to_hf_name
from ownlm.model.head_families import head_form, head_hf_name
from ownlm.model.heads import HeadModel
from ownlm.model.transformer import Transformer


def hugging_face_names(model: nn.Module) -> dict[str, str]:
    """Our names of the linear layers in a model's blocks -> theirs, in the order of the model.

    `blocks.0.attention.qkv_proj` of a GPT-2 -> `transformer.h.0.attn.c_attn`.
    """
    body = body_of(model)
    start = "" if body is model else "backbone."
    found: list[str] = []
    for name, part in body.named_modules():
        inside = name.rpartition(".")[0] in found  # the layer that an adapter was put around
        if name.startswith("blocks.") and hasattr(part, "in_features") and not inside:
            found.append(name)
    return {
        f"{start}{name}": _theirs(model, f"{start}{name}.weight").removesuffix(".weight") for name in found
    }


def whole_parts(model: nn.Module) -> dict[str, str]:
    """Our names of the parameters that are trained and stored whole beside an adapter -> theirs: those of a task head.

    BERT's pooler stands between body and head, and is one of them.
    """
    if not isinstance(model, HeadModel):
        return {}
    starts = ("head.", "backbone.pooler.") if model.uses_pooler else ("head.",)
    return {name: _theirs(model, name) for name, _ in model.named_parameters() if name.startswith(starts)}


def whole_modules(model: nn.Module) -> list[str]:
    """Their names of the modules that hold these parameters, as PEFT's `modules_to_save` takes them."""
    prefix = stored_prefix(model)
    found = {
        name.rsplit(".", 2)[0] if name.startswith(prefix) else name.split(".", 1)[0]
        for name in whole_parts(model).values()
    }
    return sorted(found)


def body_of(model: nn.Module) -> Transformer | Encoder:
    """The `Transformer` or `Encoder` that a model is, or has below its task head."""
    body = model.backbone if isinstance(model, HeadModel) else model
    assert isinstance(body, Transformer | Encoder)
    return body


def stored_prefix(model: nn.Module) -> str:
    """What names of weights below the head begin with in their files ("model.", "transformer.", "bert.")."""
    architecture = body_of(model).config.architecture
    if isinstance(model, HeadModel):
        return head_form(architecture, model.kind).prefix
    if isinstance(model, Encoder):
        return MASKED_FAMILIES[architecture].prefix
    return FAMILIES[architecture].prefix


def stored_transposed(model: nn.Module) -> bool:
    """Whether the family stores the matrices of its blocks [in, out], as GPT-2 does."""
    body = body_of(model)
    return isinstance(body, Transformer) and bool(FAMILIES[body.config.architecture].transposed)


def _theirs(model: nn.Module, name: str) -> str:
    architecture = body_of(model).config.architecture
    if isinstance(model, HeadModel):
        return head_hf_name(name, architecture, model.kind)
    if isinstance(model, Encoder):
        theirs = encoder_hf_name(name, architecture)
        return theirs if model.config.head else theirs.removeprefix(MASKED_FAMILIES[architecture].prefix)
    return to_hf_name(name, architecture)
