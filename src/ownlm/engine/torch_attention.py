"""Attention over the paged cache, on torch: on a CPU block by block with the same bits for a query in any company.

P pieces, T tokens, S slots, H key-value heads, G query heads that share one, D head width. A tile is the queries of
one key-value head for a few tokens: R rows that are multiplied together, always the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ownlm.engine.backend import BLOCK, Piece

LEAST_ROWS = 8
LOWEST = -1e30  # a finite stand-in for "no key seen yet": its weight is exactly 0 beside any real score


@dataclass(frozen=True)
class Queries:
    """Pieces of one call that are computed together, and where their tokens stand among the rows.

    Args:
        rows: int64 [P, width], rows of the call; what fills up a piece repeats its last token.
        positions: int64 [P, width] of those tokens.
        real: int64 [tokens], places in [P · width] that are tokens and fill nothing up.
        tables: int64 [P, blocks], cache blocks; shorter ones are filled up with their last block.
        blocks: number of blocks of each piece, none increasing.
        first: the smallest position.
    """

    rows: Tensor
    positions: Tensor
    real: Tensor
    tables: Tensor
    blocks: list[int]
    first: int


def tile_shape(group: int) -> tuple[int, int]:
    """(rows R, tokens of a tile) for G query heads a key-value head."""
    rows = LEAST_ROWS * -(-group // LEAST_ROWS)
    return rows, rows // group


def grouped(pieces: Sequence[Piece], tokens: int, device: torch.device) -> list[Queries]:
    """Pieces of up to `tokens` tokens together, each longer one alone; widths are multiples of `tokens`."""
    starts = np.cumsum([0, *(len(piece.ids) for piece in pieces)])[:-1]
    short = [number for number, piece in enumerate(pieces) if len(piece.ids) <= tokens]
    short.sort(key=lambda number: -len(pieces[number].blocks))
    groups = [short] if short else []
    groups += [[number] for number, piece in enumerate(pieces) if len(piece.ids) > tokens]
    return [_queries([pieces[n] for n in group], starts[group], tokens, device) for group in groups]


def _queries(
    pieces: list[Piece], starts: npt.NDArray[np.int64], tokens: int, device: torch.device
) -> Queries:
    counts = np.array([len(piece.ids) for piece in pieces])[:, None]
    blocks = [len(piece.blocks) for piece in pieces]
    along = np.arange(-(-int(counts.max()) // tokens) * tokens)
    places = np.minimum(along, counts - 1)
    before = np.array([piece.start for piece in pieces])
    tables = np.stack([np.pad(piece.blocks, (0, blocks[0] - len(piece.blocks)), "edge") for piece in pieces])
    return Queries(
        torch.from_numpy(places + starts[:, None]).to(device),
        torch.from_numpy(places + before[:, None]).to(device),
        torch.from_numpy(np.flatnonzero(along < counts)).to(device),
        torch.from_numpy(tables.astype(np.int64)).to(device),
        blocks,
        int(before.min()),
    )


def attend(
    q_NHGD: Tensor, queries: Queries, keys: Tensor, values: Tensor, scale: float, window: int | None
) -> Tensor:
    """What the queries of these pieces see: [P, tokens, H, G, D] in fp32, tokens as in `queries.rows`.

    Args:
        q_NHGD: fp32, queries of all rows of the call.
        keys, values: [blocks, H, 64, D], the cache of this layer, the new tokens included.
    """
    if q_NHGD.device.type != "cpu":
        return _fused(q_NHGD, queries, keys, values, scale, window)
    q = q_NHGD[queries.rows]
    pieces, width, heads, group, size = q.shape
    rows, tokens = tile_shape(group)
    tiles = width // tokens
    # [P, H, tiles, R, D]
    q = q.view(pieces, tiles, tokens, heads, group, size).permute(0, 3, 1, 2, 4, 5).flatten(3, 4)
    q = F.pad(q, (0, 0, 0, rows - tokens * group)) * scale
    at = queries.positions.view(pieces, 1, tiles, tokens, 1).expand(-1, -1, -1, -1, group).flatten(3, 4)
    at = F.pad(at, (0, rows - tokens * group), value=0)[..., None]
    z = _reduced(q.contiguous(), at, queries, keys, values, window)
    z = z[..., : tokens * group, :].unflatten(3, (tokens, group)).permute(0, 2, 3, 1, 4, 5)
    return z.reshape(pieces, width, heads, group, size)


def _reduced(
    q: Tensor, at: Tensor, queries: Queries, keys: Tensor, values: Tensor, window: int | None
) -> Tensor:
    """Weighted values [P, H, tiles, R, D], merged from block to block, left to right (Milakov & Gimelshein 2018,
    arXiv 1805.02867)."""
    highest = q.new_full((*q.shape[:-1], 1), LOWEST)
    total, z = torch.zeros_like(highest), torch.zeros_like(q)
    slots = torch.arange(BLOCK)
    ends = at.amax((1, 2, 3, 4))[:, None, None, None]
    tokens = queries.positions.shape[1] // q.shape[2]
    first_block = 0 if window is None else max(0, queries.first - window + 1) // BLOCK
    for block in range(first_block, queries.blocks[0]):
        active = sum(count > block for count in queries.blocks)
        # Of a long piece the tiles before this block see none of it.
        tile = 0 if q.shape[2] == 1 else max(0, block * BLOCK - queries.first) // tokens
        part = (slice(active), slice(None), slice(tile, None))
        index = queries.tables[:active, block]
        k, v = keys[index].float(), values[index].float()
        scores = _products(q[part], k.transpose(-1, -2))
        if window is not None or (block + 1) * BLOCK > queries.first + 1:
            place = slots + block * BLOCK
            seen = place <= at[part]
            if window is not None:
                seen &= place > at[part] - window
            scores.masked_fill_(~seen, -torch.inf)
            # Slots that nobody wrote may hold anything, NaN too, and 0 times NaN is NaN.
            v = v.masked_fill(place[:, None] > ends[:active], 0.0)
        new = torch.maximum(highest[part], scores.amax(-1, keepdim=True))
        weights, fade = (scores - new).exp_(), (highest[part] - new).exp_()
        total[part] = total[part] * fade + weights.sum(-1, keepdim=True)
        z[part] = z[part] * fade + _products(weights, v)
        highest[part] = new
    return z / total


def _products(left: Tensor, right: Tensor) -> Tensor:
    """[P, H, tiles, R, X] @ [P, H, X, Y], one product of R rows after the other."""
    pieces, heads, tiles, rows, inner = left.shape
    if tiles == 1:
        found = torch.bmm(left.reshape(-1, rows, inner), right.flatten(0, 1))
        return found.view(pieces, heads, tiles, rows, -1)
    alone = [torch.bmm(left[0, head], right[0, head].expand(tiles, -1, -1)) for head in range(heads)]
    return torch.stack(alone)[None]


def _fused(
    q_NHGD: Tensor, queries: Queries, keys: Tensor, values: Tensor, scale: float, window: int | None
) -> Tensor:
    """One fused kernel over the gathered cache of all pieces; its order of addition is its own."""
    q = q_NHGD[queries.rows].flatten(2, 3).transpose(1, 2).to(keys.dtype)
    k, v = (cache[queries.tables].transpose(1, 2).flatten(2, 3) for cache in (keys, values))
    slots = torch.arange(k.shape[2], device=k.device)
    at = queries.positions[:, None, :, None]
    seen = slots <= at
    if window is not None:
        seen &= slots > at - window
    v = v.masked_fill(slots[:, None] > at.amax(2, keepdim=True), 0.0)
    z = F.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True)
    return z.transpose(1, 2).unflatten(2, (q_NHGD.shape[1], -1)).float()
