"""What an exercise is about, in one of its variants: what the tasks of several exercises share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustness_lib import data, models

__all__ = ["RoadSignTask", "VariedTask"]


@dataclass(frozen=True)
class VariedTask:
    """An exercise whose random numbers follow from its variant."""

    variant: int = 0

    def generator(self, number: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.variant + number)


@dataclass(frozen=True)
class RoadSignTask(VariedTask):
    """An exercise on a shipped net for road signs, within an ε. images: how many of the test set are attacked."""

    images: int = 60

    variants: ClassVar[tuple[tuple[str, int], ...]]  # the net's name, and 255 ε; after the last comes the first

    @property
    def name(self) -> str:
        return self.variants[self.variant % len(self.variants)][0]

    @property
    def eps(self) -> float:
        return self.variants[self.variant % len(self.variants)][1] / 255

    def model(self) -> nn.Module:
        return models.load_pretrained(self.name)

    def data(self) -> tuple[Tensor, Tensor]:
        """The first test images (N, C, H, W) that the model reads rightly, and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=2 * self.images)
        with torch.no_grad():
            right = (self.model()(x).argmax(1) == y).nonzero()[:self.images, 0]
        return x[right], y[right]
