"""Products and functions whose every row has the same bits, whatever other rows are computed with it, on a CPU.

Matrix kernels choose their order of addition by the number of rows, and by the number of threads when the inner
dimension is long. So rows are multiplied 16 at a time, and fp32 products along 256 numbers at a time. Functions of
single numbers compute the end of an array with other instructions than the rest, which may differ in the last bit.

N rows, K and O widths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 16
INNER = 256
WHOLE = 64  # numbers: every instruction set's vectors, unrolled, divide it
AT_ONCE = 2**14  # numbers: what torch leaves to one thread


def padded_rows(count: int) -> int:
    """The number of rows that is a multiple of a tile."""
    return -(-count // ROWS) * ROWS


def product(x_NK: Tensor, weight_OK: Tensor) -> Tensor:
    """x Wᵀ in fp32 [N, O]; N is a multiple of 16 on a CPU. bf16 weights are multiplied by x rounded to bf16."""
    if x_NK.device.type != "cpu":
        return F.linear(x_NK.to(weight_OK.dtype), weight_OK).float()
    tiles = x_NK.to(weight_OK.dtype).split(ROWS)
    if weight_OK.dtype != torch.float32:
        return torch.cat([F.linear(tile, weight_OK) for tile in tiles]).float()
    out_NO = x_NK.new_empty(len(x_NK), len(weight_OK))
    outs = out_NO.split(ROWS)
    for start in range(
        0, weight_OK.shape[1], INNER
    ):  # all tiles use a part of the weights while it is in the cache
        part_KO = weight_OK[:, start : start + INNER].T
        for out, tile in zip(outs, tiles):
            part = tile[:, start : start + INNER]
            if start:
                out.addmm_(part, part_KO)
            else:
                torch.mm(part, part_KO, out=out)
    return out_NO


def apply(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of every number of x, in fp32."""
    if x.device.type != "cpu":
        return function(x)
    flat = x.reshape(-1)
    short = -len(flat) % WHOLE
    if short:
        flat = F.pad(flat, (0, short))
    found = torch.cat([function(part) for part in flat.split(AT_ONCE)])
    return found[: x.numel()].view(x.shape)
