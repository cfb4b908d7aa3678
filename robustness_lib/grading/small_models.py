"""Models of which the right answer is known without asking autograd."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FlatFloor", "ForkedSlope", "Waves", "bumpy_scores", "linear_gradient", "linear_scores", "modes_noted"]


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


class _Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


def bumpy_scores(shape: tuple[int, ...], classes: int, generator: torch.Generator, bumps: float = 8.0) -> nn.Sequential:
    """Images of this shape (C, H, W) to scores whose slope turns every few hundredths of a pixel: a walk uphill bends,
    and where it ends depends on where it begins. Dropout is at work in train mode."""
    inputs, hidden = math.prod(shape), 32
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, classes)
    with torch.no_grad():
        first.weight.copy_(bumps * torch.randn(hidden, inputs, generator=generator) / math.sqrt(inputs))
        first.bias.copy_(bumps * torch.randn(hidden, generator=generator))
        last.weight.copy_(torch.randn(classes, hidden, generator=generator) / math.sqrt(hidden))
        last.bias.zero_()
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.3), first, _Sine(), last)


class FlatFloor(nn.Module):
    """A model behind a staircase with rounded steps: flat, with a slope of exactly 0, where a pixel is a multiple of
    1/levels, and steep halfway between. Of images with these levels it shows what the model shows, and no gradient."""

    def __init__(self, model: nn.Module, levels: int = 16) -> None:
        super().__init__()
        self.model, self.levels = model, levels

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, classes)."""
        floor = (x * self.levels).round().detach()
        off = x * self.levels - floor
        scores: Tensor = self.model((floor + 2 * off * off.abs()) / self.levels)
        return scores


class ForkedSlope(nn.Module):
    """Two ways lead down from each image, and one of them to a mistake. Scores of two classes by the images' mean:
    where it is a multiple of `spacing`, the model is sure; a little above, it errs; as far below, it does not. A walk
    that begins above goes up, one that begins below goes down: for half of all starts there is nothing to find. A
    ripple in two of the pixels lets no two walks end alike."""

    def __init__(self, spacing: float) -> None:
        super().__init__()
        self.spacing = spacing

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, 2) of images (N, 1, 4, 4)."""
        place = x.flatten(1).mean(1) / self.spacing
        floor = place.round().detach()
        off = place - floor
        ripple = 0.05 * torch.sin(10 * math.pi * x[:, 0, 0, :2].sum(1) / self.spacing)
        sure = (torch.where(off > 0, 1 - off / 0.3, 1 + 0.5 * off / 0.3) + ripple) * (2 * (floor % 2) - 1)
        return torch.stack([-sure, sure], 1)

    def images(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (n, 1, 4, 4) with a mean at which the model is sure, and their labels (n,)."""
        x = 0.3 + 0.4 * torch.rand(n, 1, 4, 4, generator=generator)
        mean = x.mean((1, 2, 3), keepdim=True)
        floor = (mean / self.spacing).round()
        return x - mean + floor * self.spacing, (floor % 2).flatten().long()


@contextmanager
def modes_noted(model: nn.Module) -> Iterator[list[bool]]:
    """For each time that the model is asked in the block: whether it was in train mode."""
    modes: list[bool] = []
    hook = model.register_forward_pre_hook(lambda asked, _: modes.append(asked.training))
    try:
        yield modes
    finally:
        hook.remove()
