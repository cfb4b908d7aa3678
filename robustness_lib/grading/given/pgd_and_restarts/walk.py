"""One walk of PGD."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib.grading.given.pgd_and_restarts.ball import project
from robustness_lib.losses import margin_loss

__all__ = ["pgd"]


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, start: Tensor) -> Tensor:
    """Of each image's walk from its start the point with the largest margin loss. Each step is 2.5 ε/steps long."""
    model.eval()
    point = best = start
    most = torch.full((len(x),), -torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad():
            pixels = point.detach().clone().requires_grad_()
            scores = model(pixels)
            loss = F.cross_entropy(scores, y, reduction="sum")
        value = margin_loss(scores.detach(), y)
        better = value > most
        most = torch.where(better, value, most)
        best = torch.where(better.reshape(-1, *[1] * (x.dim() - 1)), point, best)
        if step < steps:
            gradient = torch.autograd.grad(loss, pixels)[0]
            point = project(point + 2.5 * eps / steps * gradient.sign(), x, eps)
    return best
