"""Models of which the right answer is known without asking autograd."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Waves", "linear_gradient", "linear_scores", "modes_noted"]


def linear_scores(shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Sequential:
    """Images of this shape (C, H, W) to scores by one linear layer. Before it stands a dropout, which is at work in
    train mode only: the gradient of a model that was left in train mode is another one."""
    inputs = math.prod(shape)
    layer = nn.Linear(inputs, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, inputs, generator=generator) / math.sqrt(inputs))
        layer.bias.copy_(torch.randn(classes, generator=generator))
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.3), layer)


def linear_gradient(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each image's cross-entropy by its pixels in eval mode, in float64 by its formula: Wᵀ(p − e_y)."""
    layer = model[-1]
    assert isinstance(layer, nn.Linear)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    p = (x.double().flatten(1) @ weight.T + bias).softmax(1)
    return ((p - F.one_hot(y, len(bias))) @ weight).reshape(x.shape)


class Waves(nn.Module):
    """Scores that rise and fall with the images' mean, each of four classes a quarter of a wave after the one before,
    so that a step can go too far: past the mistakes, and into the next wave. Six more classes never come."""

    def __init__(self, length: float) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, 10)."""
        at = x.flatten(1).mean(1, keepdim=True) / self.length
        rising = 3 * torch.cos(2 * math.pi * (at - torch.arange(4) / 4))
        return torch.cat([rising, rising.new_full((len(x), 6), -6.0)], 1)


@contextmanager
def modes_noted(model: nn.Module) -> Iterator[list[bool]]:
    """For each time that the model is asked in the block: whether it was in train mode."""
    modes: list[bool] = []
    hook = model.register_forward_pre_hook(lambda asked, _: modes.append(asked.training))
    try:
        yield modes
    finally:
        hook.remove()
