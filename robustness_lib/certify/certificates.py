"""What randomized smoothing proves, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from robustness_lib.inputs import check_labels
from robustness_lib.statistics import Accuracy

__all__ = ["ABSTAINED", "Certificates"]

ABSTAINED = -1  # in place of a class


@dataclass(frozen=True, eq=False)
class Certificates:
    """Of the smoothed classifier of one model at one σ; unpacks as (prediction, radius).

        prediction, radius = RandomizedSmoothing(model, sigma=0.25).certify(x)

    prediction: (N,) int64, the class that the smoothed classifier gives everywhere within the radius; −1 where nothing
    is certified. radius: (N,) float64, in L2, in pixel units of [0, 1]; 0 where nothing is certified. Each image's
    certificate is wrong with probability at most alpha over the sampling; it says that the answer stays the same, not
    that it is right, and nothing about the bare model.
    candidate: (N,) int64, the class whose votes were counted. votes, draws: (N,) int64, how many it got, of how many.
    n0: draws beside these that chose the candidate. n: the most that could be drawn. asked: the radius that was asked
    about, or None where the largest was looked for. sigma, alpha, seed: as given. model: a fingerprint of the bare one.
    All on the CPU.
    """

    prediction: Tensor
    radius: Tensor
    candidate: Tensor
    votes: Tensor
    draws: Tensor
    n0: int
    n: int
    asked: float | None
    sigma: float
    alpha: float
    seed: int
    model: str

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.prediction, self.radius))

    def __len__(self) -> int:
        return len(self.prediction)

    @property
    def certified(self) -> Tensor:
        """(N,) bool: there is a certificate, at the radius asked for where one was."""
        return self.prediction != ABSTAINED

    @property
    def samples(self) -> Tensor:
        """(N,) int64: what each image cost, in passes through the model."""
        return self.draws + self.n0

    def at(self, radius: float) -> Tensor:
        """(N,) bool: the answer is certified not to change within this radius (at 0: there is one).

        Raises ValueError for a radius above the one that was asked about, of which nothing is known."""
        if not radius >= 0:
            raise ValueError(f"a radius is at least 0; found {radius}")
        if self.asked is not None and radius > self.asked:
            raise ValueError(f"these certificates were asked for at radius {self.asked:g}, and say nothing of the "
                             f"larger {radius:g}")
        return self.certified & (self.radius >= radius)

    def accuracy(self, y: Tensor, radius: float = 0.0) -> Accuracy:
        """Certified accuracy: the share of images that are certified at this radius with their label y (N,) int64. At
        0: that are answered rightly, without abstaining. Raises what `at` does, and for labels of a wrong shape."""
        check_labels(y, self.radius[:, None])
        return Accuracy.of(self.at(radius) & (self.prediction == y.cpu()))

    def curve(self, y: Tensor) -> tuple[list[float], list[float]]:
        """Certified accuracy against radius, as steps: the radii, ascending from 0, at which it falls, and the share of
        images that is certified, with their label y (N,), up to and including each."""
        check_labels(y, self.radius[:, None])
        radii = np.sort(self.radius[self.certified & (self.prediction == y.cpu())].numpy())
        at = np.unique(np.concatenate(([0.0], radii)))
        shares = (len(radii) - np.searchsorted(radii, at)) / max(1, len(self))
        return at.tolist(), shares.tolist()


