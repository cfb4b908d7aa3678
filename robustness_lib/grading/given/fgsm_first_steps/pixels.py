"""The gradient of the loss by the pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["input_gradient"]


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each image's own cross-entropy by its pixels, in eval mode; like x (N, ...)."""
    model.eval()
    pixels = x.detach().clone().requires_grad_()
    with torch.enable_grad():  # also for callers who compare under no_grad
        loss = F.cross_entropy(model(pixels), y, reduction="sum")
    return torch.autograd.grad(loss, pixels)[0]
