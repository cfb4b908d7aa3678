"""What the exercise `fgsm_first_steps` is about, in its variants."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustness_lib import data
from robustness_lib.grading.tasks import RoadSignTask

__all__ = ["FIRST", "FgsmFirstStepsTask", "task"]


@dataclass(frozen=True)
class FgsmFirstStepsTask(RoadSignTask):
    """What the exercise is about, in one of its variants: a model, ε and a seed. images: how many are attacked."""

    images: int = 200

    variants = (("signs-tiny-pgd", 8), ("signs-tiny-standard", 3),
                ("signs-tiny-pgd", 6), ("signs-tiny-standard", 4))

    def data(self) -> tuple[Tensor, Tensor]:
        """Test images (N, C, H, W), also those that the model misreads, and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y


FIRST = FgsmFirstStepsTask()


def task(variant: int = 0) -> FgsmFirstStepsTask:
    """The exercise in one of its variants."""
    return FgsmFirstStepsTask(variant)
