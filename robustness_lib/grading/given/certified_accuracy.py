"""The parts of a certificate by voting (Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918)."""

from __future__ import annotations

import torch
from scipy.stats import beta, norm
from torch import Generator, Tensor, nn

__all__ = ["certified_radius", "count_votes", "lower_bound"]


def count_votes(model: nn.Module, x: Tensor, sigma: float, n: int, generator: Generator) -> Tensor:
    """How many of n noisy copies of each image x (N, C, H, W) the model puts into each class: (N, K) int64."""
    model.eval()
    rows, votes = torch.arange(len(x)), torch.empty(0, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(n):
            noisy = x + sigma * torch.randn(x.shape, generator=generator)
            scores = model(noisy.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else noisy)
            votes = votes if len(votes) else torch.zeros_like(scores, dtype=torch.int64)
            votes[rows, scores.argmax(1)] += 1
    return votes


def lower_bound(hits: int, n: int, alpha: float) -> float:
    """The one-sided bound of Clopper and Pearson: above the true share with probability alpha at most."""
    return float(beta.ppf(alpha, hits, n - hits + 1)) if hits > 0 else 0.0


def certified_radius(lower: float, sigma: float) -> float:
    """The L2 radius that follows from a share of at least `lower`; 0 where that is no majority."""
    return sigma * float(norm.ppf(lower)) if lower > 0.5 else 0.0
