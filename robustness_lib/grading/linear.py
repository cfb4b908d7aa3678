"""The model that can be solved: two classes, and a plane between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["linear_classifier", "points_at"]


def linear_classifier(w: Tensor, b: float = 0.0) -> nn.Module:
    """Images (N, ...) to logits (N, 2), whose difference is the margin w · x + b. w: of an image's shape."""
    layer = nn.Linear(w.numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-w.flatten() / 2, w.flatten() / 2]))
        layer.bias.copy_(torch.tensor([-b / 2, b / 2]))
    return nn.Sequential(nn.Flatten(), layer)


def points_at(distances: Tensor, w: Tensor, b: float = 0.0) -> Tensor:
    """An image at each of these signed L2 distances (N,) from the plane, on the line along w through the middle of the
    pixel box. w: of an image's shape. Class 1 lies at positive distances. Images lie in the box where w adds up to 0
    and is spread over many pixels."""
    grey = torch.full_like(w, 0.5)
    margin = (w * grey).sum() + b
    unit = w / w.norm()
    steps = distances - margin / w.norm()
    placed: Tensor = grey + steps.reshape(-1, *([1] * w.dim())) * unit
    return placed
