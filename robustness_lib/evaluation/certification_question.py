"""What is asked of randomized smoothing on a data set: one radius, several, or the whole curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from scipy.special import ndtr
from torch import Tensor

from robustness_lib.certify import Certificates, RandomizedSmoothing
from robustness_lib.certify.stopping import least_draws
from robustness_lib.inputs import check_real

__all__ = ["CertificationQuestion"]

_ANSWER_VOTES = 1000  # for what the smoothed classifier answers, where no curve says it


@dataclass(frozen=True)
class CertificationQuestion:
    """What is asked of each image: is it certified at these radii, in L2 and pixel units; or, with curve, what is its
    radius, to within tolerance (None: σ/10) and as far as up_to (None: 3σ, or the largest of radii).

    n0, n: votes that choose a class, and others, at most, that bound its share. alpha: the probability that a
    certificate which is given is wrong. seed: of all noise. Raises ValueError where nothing is asked, for a radius that
    is not positive, and for one beyond up_to.
    """

    radii: tuple[float, ...] = ()
    curve: bool = False
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    tolerance: float | None = None
    up_to: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.radii and not self.curve:
            raise ValueError("give at least one radius, or ask for the curve")
        for radius in self.radii:
            if not 0 < check_real("radius", radius, "in L2, in pixel units of [0, 1]") < math.inf:
                raise ValueError(f"a radius must be positive and finite, in L2, in pixel units of [0, 1]; found "
                                 f"{radius:g} (at 0 it is the smoothed classifier's accuracy, which is told anyway)")
        if not self.curve and (self.tolerance is not None or self.up_to is not None):
            raise ValueError("tolerance and up_to are for the curve, which is not asked for")
        if self.up_to is not None and self.radii and max(self.radii) > self.up_to:
            raise ValueError(f"the curve ends at {self.up_to:g}, and a radius of {max(self.radii):g} is asked about")

    def end(self, sigma: float) -> float:
        """Of the curve."""
        return self.up_to if self.up_to is not None else max((3 * sigma, *self.radii))

    def least_votes(self, sigma: float) -> float:
        """With fewer there would be no certificate even where all votes agree. Infinite where no number is enough."""
        return max(least_draws(float(ndtr(radius / sigma)), self.alpha / 2) for radius in (0.0, *self.radii))

    @property
    def answer_votes(self) -> int:
        """Votes beside those for certificates: a curve has the answers in it."""
        return 0 if self.curve else _ANSWER_VOTES

    def asked(self, smoothing: RandomizedSmoothing) -> Iterator[tuple[str, Callable[..., Certificates]]]:
        """What gives the certificates, by name, one for each radius or one for the curve."""
        if self.curve:
            tolerance = smoothing.sigma / 10 if self.tolerance is None else self.tolerance
            yield "curve", partial(smoothing.certify, n0=self.n0, n=self.n, alpha=self.alpha, tolerance=tolerance,
                                   up_to=self.end(smoothing.sigma), seed=self.seed)
            return
        for radius in self.radii:
            yield f"radius {radius!r}", partial(smoothing.certified_at, radius=radius, alpha=self.alpha, budget=self.n,
                                                n0=self.n0, seed=self.seed)

    def check(self, smoothing: RandomizedSmoothing, x: Tensor) -> None:
        """Raises at once what would be raised in the end, where it cannot be answered whatever the votes say."""
        none = x[:0]
        if self.answer_votes:
            smoothing.predict(none, self.answer_votes, self.alpha, seed=self.seed, progress=False)
        for _, certify in self.asked(smoothing):
            certify(none, progress=False)
