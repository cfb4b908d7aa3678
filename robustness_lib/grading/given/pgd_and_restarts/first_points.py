"""Where walks begin."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from robustness_lib.grading.given.pgd_and_restarts.ball import project

__all__ = ["random_start"]


def random_start(x: Tensor, eps: float, generator: Generator) -> Tensor:
    """A point for each image x (N, ...), uniform in its ball, brought into the pixel box."""
    return project(x + eps * (2 * torch.rand(x.shape, generator=generator) - 1), x, eps)
