"""Exact tests on paired verdicts, and how many images it would take to decide."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil

from scipy.special import betainc, betaincinv

__all__ = ["ALPHA", "images_to_show_a_drop", "images_to_show_below", "mcnemar"]

ALPHA = 0.05  # a drop counts as shown when chance alone would do as much less often than this
_TAIL = 0.025  # of the 95 % interval, on each side


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
        images = ceil(Fraction(losses * n, lost))  # the first number of images at which so many losses are expected
        if _tail(losses, ceil(Fraction(gained * images, n))) < ALPHA:
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
        right = ceil(share * images)
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
