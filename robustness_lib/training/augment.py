"""Augmentations that keep the label.

Which these are depends on the data: a car seen in a mirror is a car, but "keep left" in a mirror says "keep right",
and a 6 upside down is a 9. `AUGMENTATIONS` says it for the sets that `robustness_lib.data` knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from robustness_lib.inputs import check_count
from robustness_lib.shapes import per_example

__all__ = ["AUGMENTATIONS", "Augmentation", "Flip", "Shift"]


class Augmentation(ABC):
    """Drawing is apart from doing, so that of several processes each can change its part of a batch as one process
    would have."""

    @abstractmethod
    def draw(self, n: int, generator: Generator) -> Tensor:
        """What happens to each of n images: (k, n)."""

    @abstractmethod
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """The images (N, C, H, W) changed as `drawn` (k, N) says."""


@dataclass(frozen=True)
class Shift(Augmentation):
    """Each image moved by up to `by` pixels along either axis; what comes into view repeats the edge."""

    by: int = 2

    def __post_init__(self) -> None:
        check_count("by", self.by)

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.randint(2 * self.by + 1, (2, n), generator=generator)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        n, _, height, width = x.shape
        padded = F.pad(x, (self.by,) * 4, mode="replicate")
        top, left = drawn.to(x.device)
        rows = top[:, None] + torch.arange(height, device=x.device)
        columns = left[:, None] + torch.arange(width, device=x.device)
        images = torch.arange(n, device=x.device)[:, None, None]
        # Channels last in memory: convolutions on a CPU are twice as quick so.
        return padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Flip(Augmentation):
    """Left and right exchanged in every second image, by chance."""

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.randint(2, (1, n), generator=generator)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        return torch.where(per_example(drawn[0].bool().to(x.device), x), x.flip(-1), x)


AUGMENTATIONS: dict[str, tuple[Augmentation, ...]] = {
    "signs": (Shift(2),),
    "gtsrb": (Shift(2),),
    "mnist": (Shift(2),),
    "fashion-mnist": (Flip(), Shift(2)),
    "cifar10": (Flip(), Shift(4)),
    "moons": (),
}
