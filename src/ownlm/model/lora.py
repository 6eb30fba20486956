"""Low-rank adapters on the linear layers of a model: y = x Wᵀ + b + s · dropout(x) Aᵀ Bᵀ, with W and b frozen.

Hu et al. 2021 (arXiv 2106.09685), eq. 3, s = alpha / r; rank-stabilised s = alpha / √r: Kalajdzievski 2023
(arXiv 2312.03732). A [r, K] starts as torch starts a linear layer, B [O, r] at zero, so the model starts unchanged.

The layers keep their places: `blocks.0.attention.q_proj` becomes a `LoraLinear` whose `base` is the layer that stood
there. Names that people type are those of the model's Hugging Face family (`q_proj`, `c_attn`, `gate_up_proj`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlm.console.errors import UsageError, did_you_mean
from ownlm.model.int8 import Int8Linear
from ownlm.model.layer_names import body_of, hugging_face_names, whole_parts
from ownlm.model.transformer import Transformer
from ownlm.seeds import derive

ALL_LINEAR = "all-linear"
MAX_RANK = 65_536


@dataclass(frozen=True)
class LoraSettings:
    """What is added to a model.

    Args:
        r: rank of the change; the longer side of A and B is the layer's own.
        alpha: the change is multiplied by alpha / r.
        dropout: share of a layer's inputs that its A does not see, drawn anew for each token in training.
        rslora: multiply by alpha / sqrt(r) instead, so that large ranks learn as quickly as small ones.
        target_modules: endings of Hugging Face names of linear layers ("q_proj", "mlp.c_proj"), or "all-linear":
            every linear layer of the blocks.
        ranks, alphas: Hugging Face name of a layer -> its own r, its own alpha.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rslora: bool = False
    target_modules: str | tuple[str, ...] = ALL_LINEAR
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for r in (self.r, *self.ranks.values()):
            if not 1 <= r <= MAX_RANK:
                raise UsageError(f"{r:,} is no rank; it must lie between 1 and {MAX_RANK:,}.", where="lora_r")
        for alpha in (self.alpha, *self.alphas.values()):
            if not (math.isfinite(alpha) and alpha > 0):
                raise UsageError(f"{alpha} is not possible; it must be above 0.", where="lora_alpha")
        if not 0 <= self.dropout < 1:
            raise UsageError(
                f"{self.dropout} is not possible; it must be at least 0 and below 1.", where="lora_dropout"
            )

    def rank_of(self, theirs: str) -> int:
        """r of a layer, by its Hugging Face name."""
        return self.ranks.get(theirs, self.r)

    def scale_of(self, theirs: str) -> float:
        """s of a layer, by its Hugging Face name."""
        r, alpha = self.rank_of(theirs), self.alphas.get(theirs, self.alpha)
        return alpha / (math.sqrt(r) if self.rslora else r)


class LoraLinear(nn.Module):
    """A frozen linear layer and the low-rank change beside it.

    Args:
        base: [K] -> [O], in floats or int8; its weights are frozen.
        r, scale, dropout: see `LoraSettings`; `scale` is s.
    """

    def __init__(self, base: nn.Linear | Int8Linear, r: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base, self.scale, self.dropout = base.requires_grad_(False), scale, dropout
        self.in_features, self.out_features = base.in_features, base.out_features
        device = base.weight.device if isinstance(base, nn.Linear) else base.values.device
        self.lora_A = nn.Parameter(torch.empty(r, self.in_features, dtype=torch.float32, device=device))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, r, dtype=torch.float32, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., O], in the dtype of the base's own result."""
        y: Tensor = self.base(x)
        low = F.dropout(x.to(self.lora_A.dtype), self.dropout, self.training)
        return (y + F.linear(F.linear(low, self.lora_A), self.lora_B) * self.scale).to(y.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base with the change in its weight."""
        assert isinstance(self.base, nn.Linear), "whole numbers of 8 bits cannot take the change"
        add_change(self.base, self.lora_A, self.lora_B, self.scale)
        return self.base


@torch.no_grad()
def add_change(layer: nn.Linear, a_RK: Tensor, b_OR: Tensor, scale: float) -> None:
    """Put W + s · B A, summed in float32, in the place of W, in W's dtype.

    The old W stays as it is: it may lie in a file's memory map, or belong to another model too.
    """
    weight = layer.weight
    change = (b_OR.float() @ a_RK.float() * scale).to(weight.device)
    layer.weight = nn.Parameter((weight.float() + change).to(weight.dtype), weight.requires_grad)


def add_lora(model: nn.Module, settings: LoraSettings, seed: int) -> list[nn.Parameter]:
    """Freeze a model and put low-rank changes beside its linear layers, in place.

    Args:
        model: a `Transformer`, an `Encoder` or a `HeadModel`, whose head is trained whole; its dtype stays, A and B
            are float32.
        seed: each A has a stream of its own, from the seed and the layer's name.

    Returns:
        A and B of each layer, in the order of the model, then the task head: all that is trained.

    Raises:
        UsageError: a target that the model does not have, or that lies outside of its blocks; LoRA on it already.
    """
    if lora_layers(model):
        raise UsageError("the model has a low-rank adapter already.", where="LoRA")
    names = hugging_face_names(model)
    chosen = targets(names, settings.target_modules)
    model.requires_grad_(False)
    found = []
    for ours in chosen:
        base = model.get_submodule(ours)
        assert isinstance(base, nn.Linear | Int8Linear)
        theirs = names[ours]
        made = LoraLinear(base, settings.rank_of(theirs), settings.scale_of(theirs), settings.dropout)
        if not made.lora_A.is_meta:
            _start(made.lora_A, derive(seed, f"lora {ours}"))
        made.train(model.training)
        replace(model, ours, made)
        found += [made.lora_A, made.lora_B]
    for ours in whole_parts(model):
        part = model.get_parameter(ours)
        part.requires_grad_()
        found.append(part)
    body = body_of(model)
    if isinstance(body, Transformer):
        body.has_dropout = settings.dropout > 0
    return found


def seed_dropout(seed: int, step: int, micro_batch: int) -> None:
    """Seed the global generators, from which dropout draws; done before each micro-batch is computed.

    What is dropped then depends on nothing else: not on earlier steps, not on what else draws random numbers.
    """
    torch.manual_seed(derive(seed, f"dropout {step}", micro_batch))


@torch.no_grad()
def _start(a_RK: Tensor, seed: int) -> None:
    """Kaiming-uniform with a = √5, as torch starts a linear layer: uniform within ±1/√K."""
    bound = a_RK.shape[1] ** -0.5
    generator = torch.Generator().manual_seed(seed)
    a_RK.copy_(torch.empty(a_RK.shape).uniform_(-bound, bound, generator=generator))


def targets(names: Mapping[str, str], wanted: str | Iterable[str]) -> list[str]:
    """Our names of the layers that `target_modules` means.

    Args:
        names: our names of all linear layers of the blocks -> theirs.
        wanted: see `LoraSettings`.

    Raises:
        UsageError: an ending that no layer has; no ending at all.
    """
    if wanted == ALL_LINEAR:
        return list(names)
    endings = [wanted] if isinstance(wanted, str) else list(wanted)
    known = sorted({theirs.rsplit(".", 1)[-1] for theirs in names.values()})
    if not endings:
        raise UsageError(
            "no layers are named.", where="target_modules", do=f"{ALL_LINEAR}, or: {', '.join(known)}"
        )
    for ending in endings:
        if not any(is_ending(theirs, ending) for theirs in names.values()):
            raise UsageError(
                f'the model\'s blocks have no linear layer "{ending}".{did_you_mean(ending, known)}',
                where="target_modules",
                why=f"They have {', '.join(known)}.",
            )
    return [ours for ours, theirs in names.items() if any(is_ending(theirs, one) for one in endings)]


def is_ending(name: str, ending: str) -> bool:
    """Whether a dotted name is `ending` or ends with it, at a dot."""
    return name == ending or name.endswith(f".{ending}")


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Our names -> the layers that have a low-rank change."""
    return {name: part for name, part in model.named_modules() if isinstance(part, LoraLinear)}


def merge_lora(model: nn.Module) -> None:
    """Put every change into its weight, and the plain layers back into their places.

    Raises:
        UsageError: the base is in whole numbers, which cannot take a change.
    """
    layers = lora_layers(model)
    if any(not isinstance(layer.base, nn.Linear) for layer in layers.values()):
        raise UsageError(
            "the base is in int8; a change would be rounded away in it.",
            where="merging",
            do="merge into the base as it is stored",
        )
    for name, layer in layers.items():
        replace(model, name, layer.merged())


def replace(model: nn.Module, name: str, part: nn.Module) -> None:
    """Put a module in the place of another."""
    path, _, last = name.rpartition(".")
    setattr(model.get_submodule(path), last, part)
