"""Whether an attack's start is drawn as it should be: evenly from the ball."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["not_uniform"]


def not_uniform(starts: Iterable[Tensor]) -> str | None:
    """What is wrong with the spread of starts, as shares of ε, those of one image after the other's, (pixels,) each;
    None where they are uniform from −1 to 1."""
    starts = list(starts)
    share = torch.cat(starts)
    if share.min() >= 0 or share.max() <= 0:
        return "moves in one direction only: torch.rand lies between 0 and 1, so 2 · rand − 1 lies between −1 and 1"
    if (share.abs() > 0.999).double().mean() > 0.9:
        return "takes the ends only, −ε and ε: a start may lie anywhere between them"
    between = [start[start.abs() < 0.999] for start in starts]  # what was cut off at the ends is alike anyway
    if any(len(set(start.tolist())) < 0.9 * len(start) for start in between):
        return "several pixels of an image get the same noise: draw it in the shape of x, a number for each pixel"
    wanted = torch.linspace(-1, 1, len(share), dtype=share.dtype)
    by_chance = max(0.1, 5 / math.sqrt(len(share)))  # of Kolmogorov and Smirnov's distance: exceeded once in 100,000
    if (share.sort().values - wanted).abs().max() > by_chance:
        return "not all of the ball is equally likely: draw each pixel's change evenly from −ε to ε"
    return None
