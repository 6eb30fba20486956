"""Weights as whole numbers in groups of 32 with a float16 scale: the arithmetic in torch, and how they are stored.

int8: q = round(w / s) in [-127, 127], s = max|w| / 127. int4: q in [-8, 7]; of eight scales, each a share of the number
of largest magnitude, the one with the smallest squared error. q is computed with the scale as it is stored.
Every linear layer, the embedding and the head are quantised; norms, biases and learned positions are not.
kernels/inference/weights.h does the same in C++, to the bit.

In a folder a quantised `X.weight` is int8 [O, K/32, 32] (zeros fill the last group), or for int4 uint8 [O, K/2] (two a
byte, the even input in the low half, stored as q + 8), beside `X.weight_scale` float16 [O, K/32]; always outputs first,
whatever the family does. Neither has the shape of the float matrix, so that a program that does not know this layout
refuses the folder: transformers 5.23 took int8 [O, K] for the weights themselves, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ownlm.console.errors import Refused
from ownlm.model.checkpoint import all_finite, checked_places, read_config, refuse_other_copy
from ownlm.model.config import ModelConfig
from ownlm.model.families import FAMILIES, from_hugging_face, is_transposed, to_hf_name
from ownlm.model.stored import StoredWeights
from ownlm.model.transformer import Transformer

GROUP = 32
BITS = {"int8": 8, "int4": 4}
METHOD, SCALE = "ownlm", "_scale"
# Q4_0 of llama.cpp has the first alone; the others make the squared error about a tenth smaller.
INT4_DIVISORS = (-8.0, -7.75, -7.25, -8.25, -8.5, -9.0, 7.0, 7.5)


@dataclass(frozen=True)
class Quantized:
    """A matrix [O, K] in whole numbers.

    Args:
        values: int8 [O, K], or int4 as uint8 [O, ceil(K / 2)].
        scales: float16 [O, ceil(K / 32)].
        bits: 8 or 4.
        inputs: K.
    """

    values: Tensor
    scales: Tensor
    bits: int
    inputs: int


def quantize(weight: Tensor, bits: int) -> Quantized:
    """A float matrix [O, K] in whole numbers; a group with what is no number stays one without numbers."""
    groups = -(-weight.shape[1] // GROUP)
    padded = F.pad(weight.float(), (0, groups * GROUP - weight.shape[1]))
    w_OGK = padded.unflatten(1, (groups, GROUP))
    scales, q_OGK = _int8(w_OGK) if bits == 8 else _int4(w_OGK)
    values = q_OGK.flatten(1)[:, : weight.shape[1]].to(torch.int8)
    if bits == 4:
        even, odd = (
            (F.pad(values, (0, weight.shape[1] % 2)) + 8).to(torch.uint8).unflatten(1, (-1, 2)).unbind(-1)
        )
        values = even | odd << 4
    return Quantized(values.contiguous(), scales, bits, weight.shape[1])


def dequantize(quantized: Quantized, dtype: torch.dtype = torch.float32) -> Tensor:
    """The float matrix [O, K] that whole numbers and scales stand for."""
    values = quantized.values
    if quantized.bits == 4:
        values = torch.stack((values & 15, values >> 4), dim=-1).flatten(1).to(torch.int8) - 8
    q = values[:, : quantized.inputs].float()
    scales = quantized.scales.float().repeat_interleave(GROUP, dim=1)[:, : quantized.inputs]
    return (q * scales).to(dtype)


def _int8(w_OGK: Tensor) -> tuple[Tensor, Tensor]:
    scales = (w_OGK.abs().amax(-1) / 127).half()
    return scales, _divided(w_OGK, scales.float(), -127, 127)


def _int4(w_OGK: Tensor) -> tuple[Tensor, Tensor]:
    places = w_OGK.abs().argmax(-1, keepdim=True)  # what is no number counts as the largest
    largest = w_OGK.gather(-1, places).squeeze(-1)
    best: tuple[Tensor, Tensor] | None = None
    least = torch.empty(0)
    for divisor in INT4_DIVISORS:
        scales = (largest / divisor).half()
        q_OGK = _divided(w_OGK, scales.float(), -8, 7)
        off_OGK = w_OGK - q_OGK * scales.float().unsqueeze(-1)
        error = torch.zeros_like(largest)
        for off in off_OGK.unbind(-1):  # one after the other, as in C++
            error = error + off * off
        if best is None:
            best, least = (scales, q_OGK), error
        else:
            better = error < least
            scales = torch.where(better, scales, best[0])
            best = scales, torch.where(better.unsqueeze(-1), q_OGK, best[1])
            least = torch.where(better, error, least)
    assert best is not None
    return best


def _divided(w_OGK: Tensor, scales: Tensor, low: int, high: int) -> Tensor:
    """round(w / s) in [low, high]; zero where the scale is zero."""
    s = scales.unsqueeze(-1)
    q = (w_OGK / torch.where(s == 0, 1.0, s)).clamp(low, high).round()
    return torch.where(s == 0, 0.0, q).nan_to_num(0.0)


def quantized_names(config: ModelConfig) -> frozenset[str]:
    """Our names of the matrices that are quantised."""
    with torch.device("meta"):
        parameters = dict(Transformer(config).named_parameters())
    return frozenset(
        name for name, p in parameters.items() if p.ndim == 2 and name != "position_embedding.weight"
    )


def quantization_config(bits: int) -> dict[str, Any]:
    """What config.json says of quantised weights."""
    return {"quant_method": METHOD, "bits": bits, "group_size": GROUP}


def quantized_bits(content: Mapping[str, Any], where: object) -> int | None:
    """8 or 4 when a config.json says that its weights are quantised as here; None when it says nothing.

    Raises:
        Refused: they are quantised in another way.
    """
    found = content.get("quantization_config")
    if not found:
        return None
    bits = found.get("bits") if isinstance(found, dict) else None
    if bits in (8, 4) and found == quantization_config(bits):
        return int(bits)
    method = found.get("quant_method") if isinstance(found, dict) else found
    raise Refused(
        f"the weights are quantised ({str(method)[:40]!r}), in a way that is not read.",
        where=where,
        why=f"Read is {quantization_config(8)} or bits 4.",
        do="the same model's unquantised files, and --dtype int8 or int4",
    )


def named_entries(name: str, matrix: Quantized) -> dict[str, Tensor]:
    """Name in the files -> tensor, of a quantised matrix."""
    values = matrix.values
    if matrix.bits == 8:
        values = F.pad(values, (0, -matrix.inputs % GROUP)).unflatten(1, (-1, GROUP))
    return {name: values, name + SCALE: matrix.scales}


def stored_form(shape: Sequence[int], bits: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype in the files of the values of a matrix [O, K]."""
    outputs, inputs = shape
    if bits == 8:
        return (outputs, -(-inputs // GROUP), GROUP), torch.int8
    return (outputs, -(-inputs // 2)), torch.uint8


def config_of(folder: Path) -> tuple[ModelConfig, int | None]:
    """The model config of a folder, and the bits of its quantised weights."""
    content, where = read_config(folder), folder / "config.json"
    bits = quantized_bits(content, where)
    return from_hugging_face({k: v for k, v in content.items() if k != "quantization_config"}, where), bits


def stored_weights(folder: Path, *, in_turn: bool = False) -> Iterator[tuple[str, Tensor | Quantized]]:
    """(our name, values) of a folder's weights one by one.

    Args:
        in_turn: all in the same memory, each until the next one comes; else each in memory of its own.

    Raises:
        UsageError: no model there. Refused: missing or misshapen weights, names that do not belong, NaN.
    """
    config, bits = config_of(folder)
    family, architecture = FAMILIES[config.architecture], config.architecture
    with torch.device("meta"):
        parameters = dict(Transformer(config).named_parameters())
    whole = quantized_names(config) if bits else frozenset()
    ignored = [*family.no_weights, *([r"lm_head\.weight"] if config.tie_word_embeddings else [])]
    with StoredWeights(folder) as stored:
        if config.tie_word_embeddings and not bits:
            refuse_other_copy(
                stored, "lm_head.weight", to_hf_name("embedding.weight", architecture), family.prefix
            )
        floats = {to_hf_name(name, architecture): name for name in parameters if name not in whole}
        quantised = {to_hf_name(name, architecture): name for name in whole}
        transposed = {theirs for theirs, name in floats.items() if is_transposed(name, architecture)}
        _check_quantised(stored, {theirs: parameters[name] for theirs, name in quantised.items()}, bits)
        taken = [name.replace(".", r"\.") for theirs in quantised for name in (theirs, theirs + SCALE)]
        places = checked_places(
            stored,
            {theirs: parameters[name] for theirs, name in floats.items()},
            ignored + taken,
            transposed,
            family.prefix,
        )
        memory = torch.empty(stored.largest(), dtype=torch.uint8) if in_turn else None
        for theirs, name in floats.items():
            tensor = stored.read(places[theirs], memory)
            _refuse_nan(tensor, theirs, folder)
            yield name, tensor.T.contiguous() if theirs in transposed else tensor
        for theirs, name in quantised.items():
            scales = stored.read(theirs + SCALE)
            _refuse_nan(scales, theirs + SCALE, folder)
            inputs = parameters[name].shape[1]
            values = stored.read(theirs, memory).flatten(1)
            yield name, Quantized(values[:, :inputs] if bits == 8 else values, scales, bits or 0, inputs)


def _check_quantised(stored: StoredWeights, wanted: Mapping[str, Tensor], bits: int | None) -> None:
    for name, matrix in wanted.items():
        scales = (matrix.shape[0], -(-matrix.shape[1] // GROUP)), torch.float16
        for part, (shape, dtype) in {
            name: stored_form(matrix.shape, bits or 0),
            name + SCALE: scales,
        }.items():
            if part not in stored.entries:
                raise Refused(f"the weight {part} is missing.", where=stored.folder)
            entry = stored.entries[part]
            if tuple(entry.shape) != shape or entry.dtype != dtype:
                found = f"{list(entry.shape)} {str(entry.dtype).removeprefix('torch.')}"
                raise Refused(
                    f"{part} is {found}, the config wants {list(shape)} {str(dtype).removeprefix('torch.')}.",
                    where=entry.file,
                )


def _refuse_nan(tensor: Tensor, name: str, folder: Path) -> None:
    if not all_finite(tensor.float() if tensor.dtype == torch.float16 else tensor):
        raise Refused(
            f"{name} holds values that are no numbers (NaN or infinity).",
            where=folder,
            why="Every answer of the model would be one too.",
            do="fetch the model again, or take an earlier checkpoint",
        )
