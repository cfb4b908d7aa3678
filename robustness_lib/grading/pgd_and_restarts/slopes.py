"""Models on whose slopes a walk goes astray."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustness_lib.grading.linear_models import linear_layer

__all__ = ["FlatFloor", "ForkedSlope", "bumpy_scores"]


class _Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


def bumpy_scores(shape: tuple[int, ...], classes: int, generator: torch.Generator, bumps: float = 8.0) -> nn.Sequential:
    """Images of this shape (C, H, W) to scores whose slope turns every few hundredths of a pixel: a walk uphill bends,
    and where it ends depends on where it begins. Dropout is at work in train mode."""
    inputs, hidden = math.prod(shape), 32
    first = linear_layer(bumps * torch.randn(hidden, inputs, generator=generator) / math.sqrt(inputs),
                         bumps * torch.randn(hidden, generator=generator))
    last = linear_layer(torch.randn(classes, hidden, generator=generator) / math.sqrt(hidden), torch.zeros(classes))
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
