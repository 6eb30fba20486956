"""Warm-up, stable, decay: the learning rate as a function of the step alone."""

from __future__ import annotations


def learning_rate_factor(step: int, max_steps: int, warmup_steps: int, decay_steps: int) -> float:
    """Factor in (0, 1] on the peak learning rate at a 0-based step.

    Linear warm-up, a constant part, then linear decay towards zero at `max_steps` (the trapezoid of Hägele et al.
    2024, arXiv 2405.18392, §3). The last step still has a rate of 1/decay_steps, so no step is wasted.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    remaining = max_steps - step
    if remaining < decay_steps:
        return remaining / decay_steps
    return 1.0
