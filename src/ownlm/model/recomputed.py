"""A part of a model whose inner values are computed again on the way back instead of kept.

The same as `torch.utils.checkpoint`, for one float input and parameters that are trained by `backward()`. That one imports
torch's compiler when it is first called: 78 MB and most of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[[Tensor], Tensor], x: Tensor, random: bool, _: Tensor) -> Tensor:
        ctx.run, device = run, x.device.type
        ctx.random = _random_state(x.device) if random else None
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(x)
        return run(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        again = x.detach().requires_grad_(True)
        device, dtype, enabled = ctx.autocast
        with (
            torch.enable_grad(),
            torch.autocast(device, dtype, enabled=enabled),
            _drawn_again(x.device, ctx.random),
        ):
            y = ctx.run(again)
        torch.autograd.backward(y, gradient)
        return None, again.grad if ctx.needs_input_grad[1] else None, None, None


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, *, random: bool) -> Tensor:
    """run(x), with only x kept for the way back; gradients of parameters inside are added to their `.grad`.

    Args:
        random: `run` draws random numbers, which must be the same the second time.
    """
    # Parameters inside are not arguments: without one that wants a gradient, no way back would lead here.
    wanted = torch.empty(0, device=x.device, requires_grad=True)
    result: Tensor = _Recomputed.apply(run, x, random, wanted)
    return result


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _drawn_again(device: torch.device, state: tuple[Tensor, Tensor | None] | None) -> Iterator[None]:
    """Inside it, random numbers are those that followed `state`; outside, their stream is not touched."""
    if state is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield
