"""Exact intervals and exact tests on counts of images, and how many images it would take to decide."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv, nctdtrinc, ndtri, stdtrit

__all__ = ["ALPHA", "Accuracy", "PairedTrainings", "binomial_test", "clopper_pearson", "clopper_pearson_lower",
           "clopper_pearson_upper", "images_to_show_a_drop", "images_to_show_below", "lower_bounds", "mcnemar",
           "paired_interval"]

ALPHA = 0.05  # a drop counts as shown when chance alone would do as much less often than this
_TAIL = 0.025  # of the 95 % interval, on each side


def clopper_pearson(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval for a binomial share (Clopper and Pearson 1934): covers the truth at least `level` of
    the time, for every n. Raises ValueError unless 0 ≤ correct ≤ n, n ≥ 1 and 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; found {level}")
    alpha = (1 - level) / 2
    return clopper_pearson_lower(correct, n, alpha), clopper_pearson_upper(correct, n, alpha)


def clopper_pearson_lower(correct: int, n: int, alpha: float) -> float:
    """Exact one-sided lower bound for a binomial share: above the truth at most `alpha` of the time. 0 where none are
    correct. Raises ValueError unless 0 ≤ correct ≤ n, n ≥ 1 and 0 < alpha < 1."""
    _check_counts(correct, n, alpha)
    return float(lower_bounds(correct, n, alpha))


def lower_bounds(correct: ArrayLike, n: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """`clopper_pearson_lower` of many counts at once, which it does not check."""
    hits = np.asarray(correct)
    bounds: NDArray[np.float64] = np.where(hits > 0, betaincinv(np.maximum(hits, 1), n - hits + 1, alpha), 0.0)
    return bounds


def clopper_pearson_upper(correct: int, n: int, alpha: float) -> float:
    """The same from above: below the truth at most `alpha` of the time. 1 where all are correct. Raises the same."""
    _check_counts(correct, n, alpha)
    return float(betaincinv(correct + 1, n - correct, 1 - alpha)) if correct < n else 1.0


def _check_counts(correct: int, n: int, alpha: float) -> None:
    if not (0 <= correct <= n and n >= 1):
        raise ValueError(f"need 0 ≤ correct ≤ n and n ≥ 1; found correct={correct}, n={n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1; found {alpha}")


@dataclass(frozen=True)
class Accuracy:
    """A share of images with what it takes to judge it: printed, it always says n and the 95 % interval."""

    correct: int
    n: int

    @classmethod
    def of(cls, right: Any) -> Accuracy:
        """The share of true entries of a column (n,) bool, of torch or numpy."""
        return cls(int(right.sum()), len(right))

    @property
    def value(self) -> float:
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.correct, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % (95 %: {100 * low:.1f}–{100 * high:.1f}, n = {self.n:,})"


def binomial_test(hits: int, n: int, share: float) -> float:
    """p of the exact one-sided test: the probability of at least `hits` of n where each hits with probability `share`.

    Raises ValueError unless 0 ≤ hits ≤ n and 0 ≤ share ≤ 1.
    """
    if not (0 <= hits <= n and 0 <= share <= 1):
        raise ValueError(f"need 0 ≤ hits ≤ n and 0 ≤ share ≤ 1; found hits={hits}, n={n}, share={share}")
    return float(betainc(hits, n - hits + 1, share)) if hits > 0 else 1.0


def mcnemar(lost: int, gained: int, alternative: str = "two-sided") -> float:
    """p of McNemar's exact test (McNemar 1947; binomial form) on images of which both verdicts are known.

    lost: right before and wrong now; gained: the other way round. Images with the same verdict twice say nothing.
    If the model were as good as before, each of the lost + gained images would be as likely one as the other.
    alternative: "two-sided" (it changed) or "greater" (more are lost than gained: it got worse).

    Raises ValueError for negative counts and for another alternative.
    """
    if lost < 0 or gained < 0:
        raise ValueError(f"counts of images are at least 0; found lost={lost}, gained={gained}")
    if alternative == "greater":
        return _tail(lost, gained)
    if alternative == "two-sided":
        return min(1.0, 2 * _tail(max(lost, gained), min(lost, gained)))
    raise ValueError(f'alternative must be "two-sided" or "greater"; found {alternative!r}')


def paired_interval(lost: int, gained: int, n: int) -> tuple[float, float]:
    """95 % interval of the change in a share, (gained − lost) / n, when the same n images are judged twice.

    The adjusted Wald interval of Bonett and Price (2012): one image is added to each of the two counts before the
    normal approximation. It is approximate: over many truths it covers 95 to 96 % on average, and no less than 92.5 %
    at n = 20 or 93.4 % at n = 100 in the worst of them. Whether there is a change at all is for the exact test to say.

    Raises ValueError for impossible counts.
    """
    if not (lost >= 0 and gained >= 0 and n >= 1 and lost + gained <= n):
        raise ValueError(f"need lost, gained ≥ 0, n ≥ 1 and lost + gained ≤ n; found {lost}, {gained}, {n}")
    down, up = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    half = float(ndtri(0.975)) * math.sqrt((down + up - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


@dataclass(frozen=True)
class PairedTrainings:
    """What a change to the training or to the net is worth, from pairs of trainings judged on the same n images.

    Two things are chance here: the trainings (initial weights, order of the images), of which there are few, and the
    images, of which there are many. `error_of_trainings` and `error_of_images` are the standard errors of the mean
    difference from either: the spread of the pairs' differences over √pairs, and that of the images' differences, each
    averaged over the pairs, over √n. `interval` adds the two half-widths in quadrature (Student's t for the pairs, the
    normal law for the images): it is for other trainings on other images of the same kind. What pair and image do
    together is in both errors, so that it is a little too wide. `interval_on_these_images` is for other trainings on
    the same images.
    """

    effect: float  # the mean difference, after − before, as a share of the images
    error_of_trainings: float
    error_of_images: float
    pairs: int

    @classmethod
    def of(cls, before: ArrayLike, after: ArrayLike) -> PairedTrainings:
        """From verdicts (pairs, n) bool of the two: one row for each pair of trainings. Raises ValueError unless both
        have the same shape, of at least two pairs and two images."""
        was, now = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
        if was.shape != now.shape or was.ndim != 2 or min(was.shape) < 2:
            raise ValueError("need verdicts (pairs, n) of the same pairs and images, at least two of each; found "
                             f"shapes {was.shape} and {now.shape}")
        change = now.astype(float) - was
        pairs, n = change.shape
        return cls(float(change.mean()), float(change.mean(1).std(ddof=1)) / math.sqrt(pairs),
                   float(change.mean(0).std(ddof=1)) / math.sqrt(n), pairs)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, for other trainings on other images."""
        half = math.hypot(self._factor * self.error_of_trainings, float(ndtri(1 - _TAIL)) * self.error_of_images)
        return self.effect - half, self.effect + half

    @property
    def interval_on_these_images(self) -> tuple[float, float]:
        """95 %, for other trainings on the same images: the paired t interval."""
        half = self._factor * self.error_of_trainings
        return self.effect - half, self.effect + half

    def smallest_visible(self, power: float = 0.8) -> float:
        """The true effect at which `interval` would lie on one side of 0 with this probability, if the errors are as
        found here: exact for the trainings (noncentral t) and for the images alone, in quadrature for both. Raises
        ValueError unless power lies between 0.05 and 1."""
        if not ALPHA < power < 1:
            raise ValueError(f"power must lie between {ALPHA} and 1; found {power}")
        of_trainings = float(nctdtrinc(self.pairs - 1, 1 - power, self._factor))
        of_images = float(ndtri(1 - _TAIL) + ndtri(power))
        return math.hypot(of_trainings * self.error_of_trainings, of_images * self.error_of_images)

    @property
    def _factor(self) -> float:
        return float(stdtrit(self.pairs - 1, 1 - _TAIL))


def images_to_show_a_drop(lost: int, gained: int, n: int) -> int | None:
    """The smallest number of images at which the same shares of lost and gained ones would give p < 0.05, one-sided.

    lost, gained: counts among n images. Expected counts that are no whole numbers are rounded against the decision:
    lost down, gained up. None where no number would do, since not more are lost than gained. At this number a true
    drop of this size is found about every other time; take more to be sure. Raises ValueError for impossible counts.
    """
    if min(lost, gained) < 0 or not 1 <= lost + gained <= n:
        raise ValueError(f"need 1 ≤ lost + gained ≤ n; found lost={lost}, gained={gained}, n={n}")
    if lost <= gained:
        return None
    # Without the rounding p falls as the counts grow, and rounding only raises it: begin where that ends. It comes to
    # an end at a multiple of n at the latest, where nothing is rounded.
    losses = _first(lambda k: _tail(k, gained * k / lost) < ALPHA)
    while True:
        images = math.ceil(Fraction(losses * n, lost))  # the first number at which so many losses are expected
        if _tail(losses, math.ceil(Fraction(gained * images, n))) < ALPHA:
            return images
        losses += 1


def images_to_show_below(correct: int, n: int, floor: Fraction | float) -> int | None:
    """The smallest number of images at which the same share of right ones would have its 95 % interval below `floor`.

    correct: count among n images, rounded up at other numbers of images. floor: a share from 0 to 1. None where the
    share is not below it. The interval is that of Clopper and Pearson. Raises ValueError for impossible counts.
    """
    if not (0 <= correct <= n and n >= 1 and 0 <= floor <= 1):
        raise ValueError(f"need 0 ≤ correct ≤ n, n ≥ 1 and 0 ≤ floor ≤ 1; found {correct}, {n}, {floor}")
    share, limit = Fraction(correct, n), float(floor)
    if share >= floor:
        return None
    images = _first(lambda m: betaincinv(correct * m / n + 1, (n - correct) * m / n, 1 - _TAIL) < limit)
    while True:
        right = math.ceil(share * images)
        # The upper end is below the floor exactly where so few right ones would be rare at the floor.
        if right < images and betainc(images - right, right + 1, 1 - limit) < _TAIL:
            return images
        images += 1


def _tail(lost: float, gained: float) -> float:
    """P(at least `lost` heads in lost + gained throws of a fair coin), as the incomplete beta function, which also
    takes counts that are no whole numbers."""
    return float(betainc(lost, gained + 1, 0.5)) if lost > 0 else 1.0


def _first(holds: Callable[[int], bool]) -> int:
    """The smallest number from 1 on of which this holds, given that it then holds of all larger ones."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
