"""The parts of the Square attack that its loop is made of (Andriushchenko et al. 2020, arXiv 1912.00049)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

__all__ = ["accept", "propose", "stripes", "window_side"]

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000


def stripes(x: Tensor, eps: float, generator: Generator) -> Tensor:
    """Images x (N, C, H, W) plus ε or minus ε, one sign for each image, channel and column, in the pixel box."""
    n, channels, _, width = x.shape
    up = torch.rand(n, channels, 1, width, generator=generator) < 0.5
    return torch.where(up, x + eps, x - eps).clamp(0, 1)


def window_side(query: int, queries: int, height: int, width: int, p_init: float = 0.8) -> int:
    """The side of the window that is tried at this query of so many."""
    halvings = sum(query * 10_000 > mark * queries for mark in HALVED_AFTER)
    side = round(math.sqrt(p_init / 2**halvings * height * width))
    return min(max(side, 1), height, width)


def propose(x: Tensor, x_adv: Tensor, side: int, eps: float, generator: Generator) -> Tensor:
    """x_adv with one square window in each image set to x + ε or x − ε, one sign for each channel, in the box."""
    n, channels, height, width = x.shape
    proposal = x_adv.clone()
    top = torch.randint(height - side + 1, (n,), generator=generator).tolist()
    left = torch.randint(width - side + 1, (n,), generator=generator).tolist()
    signs = torch.randint(2, (n, channels, 1, 1), generator=generator) * 2 - 1
    for i in range(n):
        window = (i, slice(None), slice(top[i], top[i] + side), slice(left[i], left[i] + side))
        proposal[window] = x[window] + eps * signs[i]
    return proposal.clamp(0, 1)


def accept(x_adv: Tensor, loss: Tensor, proposal: Tensor, new_loss: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image the point with the larger loss, and that loss. Images (N, C, H, W), losses (N,)."""
    better = new_loss > loss
    return torch.where(better[:, None, None, None], proposal, x_adv), torch.where(better, new_loss, loss)
