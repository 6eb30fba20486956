"""Attention over blocks: the textbook's formula, and the fused kernel of other devices gives the same up to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ownlm.engine.backend import BLOCK, Piece
from ownlm.engine.torch_attention import _fused, attend, grouped, tile_shape

HEADS, SIZE, SCALE = 2, 12, 0.3
LENGTHS = [(0, 150), (70, 1), (5, 3), (127, 2), (64, 66), (200, 1)]  # (before, tokens) of each piece


@pytest.mark.parametrize("group", [1, 3, 8, 11])
@pytest.mark.parametrize("window", [None, 20])
def test_both_ways_are_the_formula(group: int, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    counts = [-(-(before + count) // BLOCK) for before, count in LENGTHS]
    order = np.random.default_rng(0).permutation(sum(counts)).astype(np.int32)
    pieces = [
        Piece(n, np.zeros(count, np.int32), before, blocks, np.zeros(0, np.int32))
        for n, ((before, count), blocks) in enumerate(zip(LENGTHS, np.split(order, np.cumsum(counts)[:-1])))
    ]
    keys, values = draw(sum(counts), HEADS, BLOCK, SIZE), draw(sum(counts), HEADS, BLOCK, SIZE)
    for (before, count), piece in zip(LENGTHS, pieces):  # what nobody wrote may be anything
        values[piece.blocks[-1], :, (before + count - 1) % BLOCK + 1 :] = float("nan")
    q = draw(sum(count for _, count in LENGTHS), HEADS, group, SIZE)
    expected = torch.cat([textbook(q_T, piece, keys, values, window) for q_T, piece in split(q, pieces)])
    for function, tokens in ((attend, tile_shape(group)[1]), (_fused, 1)):
        found = torch.full_like(q, float("nan"))
        for queries in grouped(pieces, tokens, torch.device("cpu")):
            z = function(q, queries, keys, values, SCALE, window)
            found[queries.rows.flatten()[queries.real]] = z.flatten(0, 1)[queries.real]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def split(q: torch.Tensor, pieces: list[Piece]) -> list[tuple[torch.Tensor, Piece]]:
    return list(zip(q.split([len(piece.ids) for piece in pieces]), pieces))


def textbook(
    q_T: torch.Tensor, piece: Piece, keys: torch.Tensor, values: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Σ softmax(scale · q·k) v of each query, over the keys that it sees, in float64."""
    rows = []
    for place, q in enumerate(q_T, piece.start):
        first = 0 if window is None else max(0, place - window + 1)
        k, v = (
            cache[piece.blocks].transpose(0, 1).flatten(1, 2)[:, first : place + 1]
            for cache in (keys, values)
        )
        scores = SCALE * torch.einsum("hgd,hsd->hgs", q.double(), k.double())
        rows.append(torch.einsum("hgs,hsd->hgd", scores.softmax(-1), v.double()).float())
    return torch.stack(rows)
