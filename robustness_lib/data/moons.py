"""Two interleaved half circles in the unit square: the plane on which ideas of the book are drawn first."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustness_lib import counter_random

__all__ = ["CLASSES", "NOISE", "SEEDS", "SIZES", "draw_moons"]

CLASSES = ("upper moon", "lower moon")
SIZES = {"train": 1_000, "validation": 100, "test": 1_000}
SEEDS = {"train": 20_261_000, "validation": 20_261_001, "test": 20_261_002}
NOISE = 0.10  # standard deviation, where a moon's radius is 1


def draw_moons(n: int, *, start: int = 0, seed: int = SEEDS["train"],
               noise: float = NOISE) -> tuple[Tensor, Tensor]:
    """Draw points number `start` to `start + n - 1`: even numbers on the upper moon, odd ones on the lower.

    Returns x, float32 of shape (n, 2) in [0, 1], and y, int64 of shape (n,). Raises ValueError if n, start or
    noise is negative.
    """
    if n < 0 or start < 0 or noise < 0:
        raise ValueError(f"n, start and noise must not be negative; "
                         f"found n={n}, start={start}, noise={noise}")
    index = torch.arange(start, start + n)
    y = index % 2
    angle = math.pi * counter_random.uniform((), seed=seed, index=index)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    points = torch.where(y[:, None] == 0, upper, lower)
    points = points + noise * counter_random.normal((2,), seed=seed, index=index, step=1)
    # The moons reach from -1 to 2 and from -0.5 to 1; leave a margin of four standard deviations around them.
    low, high = torch.tensor([-1.4, -0.9]), torch.tensor([2.4, 1.4])
    return ((points - low) / (high - low)).clamp_(0, 1).to(torch.float32), y
