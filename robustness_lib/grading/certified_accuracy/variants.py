"""What the exercise `certified_accuracy` is about, in its variants, and the votes that are counted once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from scipy.stats import norm
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.certify import ABSTAINED
from robustness_lib.grading.given import certified_accuracy as given
from robustness_lib.grading.tasks import VariedTask

__all__ = ["FIRST", "FORBIDDEN", "CertifiedAccuracyTask", "Voted", "task"]

FORBIDDEN = ("certify", "statistics.py", "grading/given")  # where a step that is to write a part may not look
_VARIANTS = ((0.25, 0.5), (0.12, 0.5), (0.25, 1.0), (0.12, 0.25))


class Voted(NamedTuple):
    """What was certified: class (N,) int64, −1 where the vote abstained, and radius (N,), 0 there."""

    prediction: Tensor
    radius: Tensor


@dataclass(frozen=True)
class CertifiedAccuracyTask(VariedTask):
    """What the exercise is about, in one of its variants: two σ, each with a net that was trained for it, and a seed.

    images: how many of the test set are certified. n0, n: votes that choose a class, and that bound its share.
    alpha: the probability with which a certificate may be wrong.
    """

    images: int = 40
    n0: int = 50
    n: int = 500
    alpha: float = 0.001

    @property
    def sigmas(self) -> tuple[float, float]:
        return _VARIANTS[self.variant % len(_VARIANTS)]

    def model(self, sigma: float) -> nn.Module:
        return models.load_pretrained(f"signs-gaussian-{sigma:g}")

    def data(self) -> tuple[Tensor, Tensor]:
        """The first test images (N, C, H, W), and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y

    def voted(self, sigma: float) -> Voted:
        """The votes on the images under this σ, counted once and kept, and what they certify."""
        return _voted(self, sigma)

    @property
    def radii(self) -> Tensor:
        """Radii for a curve, (B,), beyond the largest that so many votes can certify."""
        largest = self.sigmas[1] * norm.ppf(self.alpha ** (1 / self.n))
        return torch.linspace(0, 1.05 * largest, 81, dtype=torch.float64)


@lru_cache(maxsize=8)
def _voted(task: CertifiedAccuracyTask, sigma: float) -> Voted:
    model, (x, _), draw = task.model(sigma), task.data(), task.generator(7)
    chosen = given.count_votes(model, x, sigma, task.n0, draw).argmax(1)
    hits = given.count_votes(model, x, sigma, task.n, draw).gather(1, chosen[:, None])[:, 0]
    radius = torch.tensor([given.certified_radius(given.lower_bound(one, task.n, task.alpha), sigma)
                           for one in hits.tolist()], dtype=torch.float64)
    return Voted(torch.where(radius > 0, chosen, ABSTAINED), radius)


FIRST = CertifiedAccuracyTask()


def task(variant: int = 0) -> CertifiedAccuracyTask:
    """The exercise in one of its variants."""
    return CertifiedAccuracyTask(variant)
