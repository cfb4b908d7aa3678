"""The points that are allowed: within ε of an image in L∞, and in the pixel box."""

from __future__ import annotations

from torch import Tensor

__all__ = ["project"]


def project(points: Tensor, x: Tensor, eps: float) -> Tensor:
    """Of each point the nearest one that is within ε of its image and in [0, 1]. Both (N, ...)."""
    return points.clamp(x - eps, x + eps).clamp(0, 1)
