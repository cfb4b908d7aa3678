"""What the exercise `break_the_defence` is about, in its variants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.attacks import PGD
from robustness_lib.defenses import BitDepth
from robustness_lib.grading.break_the_defence.random_answers import NotedResizePad
from robustness_lib.grading.given import break_the_defence as given
from robustness_lib.grading.tasks import VariedTask
from robustness_lib.losses import margin_loss
from robustness_lib.threat import ThreatModel

__all__ = ["FIRST", "FORBIDDEN", "DefenseTask", "task"]

FORBIDDEN = ("grading/given", "attacks")  # where a step that is to write a part may not look
_VARIANTS = ((14, 3, 0.6), (13, 3, 0.7), (14, 3, 0.7), (13, 3, 0.6))  # ε, bits, smallest size
_JUDGING = 10_000  # where the random numbers of whoever judges begin, which no attack has seen


@dataclass(frozen=True)
class DefenseTask(VariedTask):
    """What the exercise is about, in one of its variants: a defended model, ε, a seed, and what the attack may cost.

    images: how many of the test set are attacked. judged: fresh answers for each image, when an attack is judged.
    most: the share of them that may stand after a right attack.
    """

    images: int = 60
    steps: int = 25
    draws: int = 4
    judged: int = 15
    most: float = 0.10

    @property
    def eps(self) -> float:
        return _VARIANTS[self.variant % len(_VARIANTS)][0] / 255

    def net(self) -> nn.Module:
        """The network without any defense."""
        return models.load_pretrained("signs-standard").eval().to(memory_format=torch.channels_last)

    def defense(self) -> BitDepth:
        """Pixels of few levels, then a random size and place, then the network."""
        _, bits, smallest = _VARIANTS[self.variant % len(_VARIANTS)]
        return BitDepth(NotedResizePad(self.net(), smallest), bits)

    def data(self) -> tuple[Tensor, Tensor]:
        """Test images (N, C, H, W), and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y

    def unaware(self, *, all_steps: bool = False) -> Tensor:
        """What PGD finds on the bare network, (N, C, H, W). It stops at the first point that the network misreads, as
        attacks do by default, unless it is to take all its steps."""
        attack = PGD(ThreatModel("linf", self.eps), steps=20, loss="margin",
                     stop="never" if all_steps else "success")
        return attack.run(self.net(), *self.data()).x_adv

    def judge(self, defense: nn.Module, x: Tensor) -> tuple[Tensor, float]:
        """Whether each image stands (N,), and the mean margin loss, under random numbers that no attack has seen."""
        _, y = self.data()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_JUDGING + self.seed)
            standing = given.stands(defense, x, y, self.judged)
            return standing, margin_loss(defense(x), y).mean().item()


FIRST = DefenseTask()


def task(variant: int = 0) -> DefenseTask:
    """The exercise in one of its variants."""
    return DefenseTask(variant)
