"""A model whose matrices are int8, for training adapters on: `add_lora(open_int8(folder), …)`.

The whole numbers are those with which the engine computes the same model in int8, so an adapter is trained beside the
base that it will be used with. In floats stay norms, biases and learned positions.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ownlm.console.errors import Refused
from ownlm.engine.quantized import (
    BITS,
    GROUP,
    Quantized,
    config_of,
    quantize,
    quantized_names,
    stored_weights,
)
from ownlm.model.int8 import FLOATS_AT_ONCE, Int8Embedding, Int8Linear, Int8Matrix
from ownlm.model.layer_names import body_of
from ownlm.model.lora import replace
from ownlm.model.transformer import Transformer


def quantize_base(model: nn.Module) -> nn.Module:
    """Put int8 in the place of a model's matrices, one after the other; its floats are given back as it goes.

    Of a `Transformer` every linear layer of the blocks, the embedding and the head; of an `Encoder` the linear layers
    of the blocks. Below a task head the same of the body; the head stays in floats.
    """
    body = body_of(model)
    for name, part in list(body.named_modules()):
        whole = isinstance(body, Transformer) and name in ("embedding", "lm_head")
        if whole or (name.startswith("blocks.") and isinstance(part, nn.Linear)):
            replace(body, name, _in_int8(part))
    return model


def open_int8(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """A folder of a causal model with its matrices in int8, in eval mode; in memory is at most one of them in floats.

    Args:
        dtype: of norms, biases and activations.

    Raises:
        UsageError: no model there. NotNative: not built in. Refused: damaged, or stored in int4.
    """
    config, bits = config_of(folder)
    if bits not in (None, BITS["int8"]):
        raise Refused(
            f"the weights are stored in int{bits}.",
            where=folder,
            why="Adapters are trained on floats or int8.",
            do="the same model in int8 or unquantised",
        )
    with torch.device("meta"):
        model = Transformer(config)
    whole = quantized_names(config)
    for name, values in stored_weights(folder, in_turn=True):
        path, _, last = name.rpartition(".")
        place = model.get_submodule(path)
        if name in whole:
            if isinstance(values, Quantized):
                numbers, scales = values.values.clone(), values.scales
            else:
                numbers, scales = _int8(values)
            replace(model, path, _made(place, numbers.to(device), scales.to(device), dtype))
            continue
        assert isinstance(values, Tensor)
        if isinstance(place, Int8Linear):
            place.bias = values.to(device, dtype, copy=True)
        else:
            place.register_parameter(last, nn.Parameter(values.to(device, dtype, copy=True)))
    return model.eval()


def _in_int8(part: nn.Module) -> Int8Matrix:
    weight = part.weight
    assert isinstance(weight, Tensor)
    return _made(part, *_int8(weight.detach()), weight.dtype)


def _made(part: nn.Module, values: Tensor, scales: Tensor, dtype: torch.dtype) -> Int8Matrix:
    if isinstance(part, nn.Embedding):
        return Int8Embedding(values, scales, dtype)
    bias = part.bias if isinstance(part, nn.Linear) else None
    return Int8Linear(values, scales, None if bias is None or bias.is_meta else bias)


def _int8(weight_OK: Tensor) -> tuple[Tensor, Tensor]:
    """(values, scales) of a float matrix, some rows at a time: quantising takes several copies of what it works on."""
    outputs, inputs = weight_OK.shape
    values = torch.empty(outputs, inputs, dtype=torch.int8, device=weight_OK.device)
    scales = torch.empty(outputs, -(-inputs // GROUP), dtype=torch.float16, device=weight_OK.device)
    rows = max(1, FLOATS_AT_ONCE // inputs)
    for first in range(0, outputs, rows):
        part = quantize(weight_OK[first : first + rows], BITS["int8"])
        values[first : first + rows], scales[first : first + rows] = part.values, part.scales
    return values, scales
