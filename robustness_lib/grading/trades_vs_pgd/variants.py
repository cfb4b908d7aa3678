"""What the exercise `trades_vs_pgd` is about, in its variants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.grading.tasks import VariedTask
from robustness_lib.threat import ThreatModel

__all__ = ["FIRST", "TradesVsPgdTask", "task", "written_here"]

_VARIANTS = ((4, 1), (4, 2), (6, 1), (3, 2))  # 255 ε, β
_QUESTIONS = (
    (("fgsm-rs", "pgd", 100), ("fgsm-rs", "pgd", 1000), ("pgd", "trades-6", 1000), ("standard", "trades-3", 100)),
    (("trades-3", "fgsm-rs", 1000), ("trades-1", "trades-6", 1000), ("fgsm-rs", "trades-3", 100),
     ("pgd", "standard", 100)),
)


@dataclass(frozen=True)
class TradesVsPgdTask(VariedTask):
    """What the exercise is about, in one of its variants: ε, β, a seed, and how long the nets are trained.

    updates: steps of training, of `batch` images each, with attacks of `steps` steps. images: how many of the test set
    judge the nets.
    """

    updates: int = 80
    batch: int = 64
    steps: int = 5
    images: int = 200

    @property
    def eps(self) -> float:
        return _VARIANTS[self.variant % len(_VARIANTS)][0] / 255

    @property
    def beta(self) -> float:
        return float(_VARIANTS[self.variant % len(_VARIANTS)][1])

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel("linf", self.eps)

    @property
    def questions(self) -> tuple[tuple[str, str, int], ...]:
        """Of two shipped nets and so many images: is one better under attack?"""
        return _QUESTIONS[self.variant % len(_QUESTIONS)]

    def model(self) -> nn.Module:
        """The net that both trainings start from: one that never saw an attack."""
        return models.load_pretrained("signs-tiny-standard")

    def data(self) -> tuple[Tensor, Tensor]:
        """The first test images (N, C, H, W) and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The batches of the training, equal for every loss."""
        x, y, _ = data.load("signs", "train", n=4000)
        rows = torch.randint(len(x), (self.updates, self.batch), generator=self.generator(1))
        return [(x[few], y[few]) for few in rows]


FIRST = TradesVsPgdTask()


def task(variant: int = 0) -> TradesVsPgdTask:
    """The exercise in one of its variants."""
    return TradesVsPgdTask(variant)


_OBJECTIVES = ("attacks", "training")


def written_here(*functions: str) -> tuple[str, ...]:
    """What is forbidden in a step that writes these functions: the library's objectives, and what is given of them."""
    return (*_OBJECTIVES, *(f"grading/given/trades_vs_pgd.py:{function}" for function in functions))
