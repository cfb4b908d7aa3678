"""Walks from several starts."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from robustness_lib.grading.given.pgd_and_restarts.first_points import random_start
from robustness_lib.grading.given.pgd_and_restarts.walk import pgd
from robustness_lib.losses import margin_loss

__all__ = ["pgd_with_restarts"]


def pgd_with_restarts(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, restarts: int,
                      generator: Generator) -> Tensor:
    """The best point of all walks, image by image. Images that are broken are left alone from then on."""
    best, most = x.clone(), torch.full((len(x),), -torch.inf)
    for _ in range(restarts):
        rows = (most <= 0).nonzero()[:, 0]
        if not len(rows):
            break
        start = random_start(x[rows], eps, generator)
        found = pgd(model, x[rows], y[rows], eps, steps, start)
        with torch.no_grad():
            value = margin_loss(model(found), y[rows])
        better = value > most[rows]
        best[rows[better]], most[rows[better]] = found[better].to(best.dtype), value[better]
    return best
