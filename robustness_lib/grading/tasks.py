"""What an exercise is about, in one of its variants: what the tasks of several exercises share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.grading.returned_values import misread

__all__ = ["RoadSignTask", "VariedTask"]


@dataclass(frozen=True)
class VariedTask:
    """An exercise whose random numbers follow from its variant."""

    variant: int = 0

    @property
    def seed(self) -> int:
        return 1000 * self.variant

    def generator(self, number: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + number)

    @classmethod
    def for_grading(cls, task: VariedTask, further: int = 5) -> Self:
        """The exercise for its checks in grading. Of the learner's task only the variant counts: whatever else was
        changed about it, this is the exercise as it is. further: so many variants on: five are other settings, since
        there are four of them, and other random numbers."""
        return cls(int(task.variant) + further)


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
        """The first test images (N, C, H, W) that the model classifies correctly, and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=2 * self.images)
        right = (~misread(self.model(), x, y)).nonzero()[:self.images, 0]
        return x[right], y[right]
