"""What is certified, image by image, and what randomized smoothing certifies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from robustness_lib.inputs import check_labels
from robustness_lib.statistics import Accuracy

__all__ = ["ABSTAINED", "Certificates", "CertifiedRadii"]

ABSTAINED = -1  # in place of a class


class CertifiedRadii:
    """What certificates of all kinds share: a class and a radius for each image; unpacks as (prediction, radius)."""

    prediction: Tensor
    radius: Tensor
    images: tuple[str, ...]
    up_to: float | None

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.prediction, self.radius))

    def __len__(self) -> int:
        return len(self.prediction)

    @property
    def certified(self) -> Tensor:
        """(N,) bool: there is a certificate, at the radius asked for where one was."""
        return self.prediction != ABSTAINED

    def at(self, radius: float) -> Tensor:
        """(N,) bool: the answer is certified not to change within this radius (at 0: there is a certificate).

        Raises ValueError for a radius above `up_to`: nobody has looked there."""
        if not radius >= 0:
            raise ValueError(f"a radius is at least 0; found {radius}")
        if self.up_to is not None and radius > self.up_to:
            raise ValueError(f"these certificates were looked for up to radius {self.up_to:g}, and say nothing of the "
                             f"larger {radius:g}")
        return self.certified & (self.radius >= radius)

    def accuracy(self, y: Tensor, radius: float = 0.0) -> Accuracy:
        """Certified accuracy: the share of images that are certified at this radius with their label y (N,) int64. At
        0: at whatever radius. Raises what `at` does, and for labels of a wrong shape."""
        check_labels(y, self.radius[:, None])
        return Accuracy.of(self.at(radius) & (self.prediction == y.cpu()))

    def check_images(self, images: Sequence[str], first: int = 0) -> None:
        """Raises ValueError unless these, from `image_digests`, are the images number `first` and so on that were
        certified."""
        mine = self.images[first:first + len(images)]
        if list(mine) != list(images):
            row = next((k for k, (one, other) in enumerate(zip(mine, images, strict=False)) if one != other), len(mine))
            raise ValueError(f"image {first + row} is not the one that was certified: these certificates are of "
                             f"{len(self)} other images, or of the same in another order. Certify the images that you "
                             f"give, and do not shuffle them in between")

    def curve(self, y: Tensor) -> tuple[list[float], list[float]]:
        """Certified accuracy against radius, as steps: the radii, ascending from 0 and no further than `up_to`, at
        which it falls, and the share of images that is certified, with their label y (N,), up to and including each."""
        check_labels(y, self.radius[:, None])
        radii = np.sort(self.radius[self.certified & (self.prediction == y.cpu())].numpy())
        at = np.unique(np.concatenate(([0.0], radii[radii <= (np.inf if self.up_to is None else self.up_to)])))
        shares = (len(radii) - np.searchsorted(radii, at)) / max(1, len(self))
        return at.tolist(), shares.tolist()


@dataclass(frozen=True, eq=False)
class Certificates(CertifiedRadii):
    """Of the smoothed classifier of one model at one σ; unpacks as (prediction, radius).

        prediction, radius = RandomizedSmoothing(model, sigma=0.25).certify(x)

    prediction: (N,) int64, the class that the smoothed classifier gives everywhere within the radius; −1 where nothing
    is certified. radius: (N,) float64, in L2, in pixel units of [0, 1]; 0 where nothing is certified. Each image's
    certificate is wrong with probability at most alpha over the sampling; it says that the answer stays the same, not
    that it is right, and nothing about the bare model.
    candidate: (N,) int64, the class whose votes were counted. votes, draws: (N,) int64, how many it got, of how many.
    unanswered: (N,) int64, of these draws, those on which the model's answer was no number: votes for nobody.
    n0: draws beside these that chose the candidate. n: the most that could be drawn. up_to: the radius that was asked
    about, or at which the search for a larger one ended; None where it did not. sigma, alpha, seed: as given. model: a
    fingerprint of the bare one. images: one of each image. All on the CPU.
    """

    prediction: Tensor
    radius: Tensor
    candidate: Tensor
    votes: Tensor
    draws: Tensor
    unanswered: Tensor
    n0: int
    n: int
    up_to: float | None
    sigma: float
    alpha: float
    seed: int
    model: str
    images: tuple[str, ...] = field(repr=False)

    @property
    def samples(self) -> Tensor:
        """(N,) int64: what each image cost, in passes through the model."""
        return self.draws + self.n0
