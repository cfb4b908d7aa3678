"""The parts of an adaptive attack: BPDA (Athalye, Carlini and Wagner 2018, arXiv 1802.00420), EOT (Athalye et al. 2018,
arXiv 1707.07397), and a count by fresh draws."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustness_lib.losses import margin_loss

__all__ = ["eot_gradient", "stands", "straight_through"]


def stands(defense: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, draws: int) -> Tensor:
    """(N,) bool: whether more than half of so many fresh answers to each image are its label."""
    with torch.no_grad():
        right = torch.stack([defense(x).argmax(1) == y for _ in range(draws)])
    return right.double().mean(0) > 0.5


def straight_through(transform: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What transform makes of x, with a gradient as if it had changed nothing."""
    return x + (transform(x) - x).detach()


def eot_gradient(answer: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, draws: int) -> Tensor:
    """The mean, over so many fresh answers, of the gradients of each image's margin loss by its pixels: (N, C, H, W).
    answer: images to scores (N, K), drawn anew at each call."""
    total = torch.zeros_like(x)
    for _ in range(draws):
        point = x.detach().requires_grad_()
        total += torch.autograd.grad(margin_loss(answer(point), y).sum(), point)[0]
    return total / draws
