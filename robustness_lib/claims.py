"""What is said of robustness, judged by what was measured: a claim is a range, a measurement an interval, and the
verdict follows from where the one lies in the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from robustness_lib.statistics import Accuracy, clopper_pearson

__all__ = ["RULE", "VERDICTS", "Claim", "Measurement", "Range", "Ruling", "difference", "judge", "lost_share",
           "median_interval", "worst_and_best"]

Range = tuple[float, float]
Ruling = Literal["holds here", "does not", "cannot tell"]
VERDICTS: tuple[Ruling, ...] = ("holds here", "does not", "cannot tell")

RULE = (
    "A claim is a range, and a measurement is a 95 % interval. The claim *holds here* if the interval lies wholly in "
    "the range, and it *does not* if it lies wholly outside; if it reaches both, we *cannot tell*. Where a claim is "
    "measured in several places, it holds if it holds in all of them, and one in which it does not is enough, since "
    "what is said without a condition is said of every place. Where a measurement is only a bound, as a stronger "
    "attack may find more, the interval reaches from that bound on.")

_EACH = 0.975  # two intervals of 97.5 % hold both at least 95 % of the time, whatever they have to do with each other


def judge(interval: Range, claimed: Range) -> Ruling:
    """What one measurement says of a claim.

    Args:
        interval: where the measured value lies, both ends included. An end may be infinite.
        claimed: the range that is claimed, in the same unit, both ends included. An end may be infinite.

    Returns:
        "holds here" if the interval lies in the range, "does not" if they have no point in common, "cannot tell" else.

    Raises:
        ValueError: if an end is NaN, or a range ends before it begins.
    """
    for name, (low, high) in {"interval": interval, "claimed range": claimed}.items():
        if not low <= high:
            raise ValueError(f"the {name} must begin before it ends; found {low} to {high}")
    if claimed[0] <= interval[0] and interval[1] <= claimed[1]:
        return "holds here"
    return "does not" if interval[1] < claimed[0] or claimed[1] < interval[0] else "cannot tell"


@dataclass(frozen=True)
class Measurement:
    """One figure that speaks for or against a claim.

    Attributes:
        where: what was measured, on what, in a few words.
        value: the figure, in `unit`.
        interval: its 95 % interval.
        claimed: the range that the claim gives it.
        n: how many images, or other independent things, it rests on.
        unit: what stands behind the figure: "%", "points", "×", "passes".
        bound: "above" where the truth may lie lower than the figure, as after an attack that a stronger one may beat;
            "below" where it may lie higher.
        given: the verdict, where a stricter rule than `judge` has given it elsewhere.
    """

    where: str
    value: float
    interval: Range
    claimed: Range
    n: int
    unit: str = "%"
    bound: Literal["", "above", "below"] = ""
    given: Ruling | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"{self.where}: a measurement rests on at least one image; found n = {self.n}")
        if not self.interval[0] <= self.value <= self.interval[1]:
            raise ValueError(f"{self.where}: the value {self.value} lies outside its interval {self.interval}")
        judge(self.interval, self.claimed)

    @property
    def verdict(self) -> Ruling:
        if self.given is not None:
            return self.given
        low, high = self.interval
        return judge((-math.inf if self.bound == "above" else low, math.inf if self.bound == "below" else high),
                     self.claimed)


@dataclass(frozen=True)
class Claim:
    """What is said, and everything that was measured of it.

    Attributes:
        anchor: the place on the page that its links lead to.
        words: what is said, as people say it.
        sources: who says it: keys of the bibliography.
        made: the command, cell or chapter behind the figures, and when it ran.
        seeds: how many trainings or draws stand behind them, in words.
        measurements: at least one.
    """

    anchor: str
    words: str
    sources: tuple[str, ...]
    made: str
    seeds: str
    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        missing = [name for name in ("anchor", "words", "sources", "made", "seeds", "measurements")
                   if not getattr(self, name)]
        if missing:
            raise ValueError(f"claim {self.anchor or self.words!r} lacks {', '.join(missing)}")

    @property
    def verdict(self) -> Ruling:
        """As RULE says: all must hold, and one that does not is enough."""
        found = {measurement.verdict for measurement in self.measurements}
        if found == {"holds here"}:
            return "holds here"
        return "does not" if "does not" in found else "cannot tell"


def difference(before: Accuracy, after: Accuracy) -> Range:
    """An interval of after − before, as shares, that holds the truth at least 95 % of the time whether the two were
    measured on the same images, on others, or on some of the same: it joins two exact ones of 97.5 %. Where the same
    images are known one by one, `robustness_lib.statistics.paired_interval` is tighter."""
    (low, high), (first, last) = (clopper_pearson(one.correct, one.n, _EACH) for one in (after, before))
    return low - last, high - first


def lost_share(before: Accuracy, after: Accuracy) -> Range:
    """The same for the share of `before` that is gone `after`: 1 − after / before. It may be negative.

    Raises:
        ValueError: if so few are right before that nothing can be said of what is left of them.
    """
    (low, high), (first, last) = (clopper_pearson(one.correct, one.n, _EACH) for one in (after, before))
    if first == 0:
        raise ValueError("nothing was right before, so no share of it can be lost")
    return 1 - high / first, 1 - low / last


def median_interval(values: ArrayLike) -> tuple[float, Range]:
    """The median of independent values (n,), and an interval that holds the true one at least 95 % of the time, for
    every distribution: it ends at two of the values, chosen by the binomial distribution with p = ½.

    Raises:
        ValueError: if there are fewer than six values, or one is NaN: no two of them make such an interval.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if len(ordered) < 6 or np.isnan(ordered).any():
        raise ValueError(f"an interval of the median takes at least six numbers; found {len(ordered)}, or NaN")
    below = _last(lambda k: float(bdtr(k, len(ordered), 0.5)) <= 0.025)
    return float(np.median(ordered)), (float(ordered[below]), float(ordered[-1 - below]))


def _last(holds: Callable[[int], bool]) -> int:
    """The last k from 0 on for which it holds; it holds for 0."""
    k = 0
    while holds(k + 1):
        k += 1
    return k


def worst_and_best(groups: Sequence[Accuracy]) -> Range:
    """An interval of how far the best of several groups of images lies above the worst, as shares; holds at least 95 %
    of the time, though which is which was seen in the same figures: all groups' intervals hold at once (Bonferroni)."""
    ends = [clopper_pearson(group.correct, group.n, 1 - 0.05 / len(groups)) for group in groups]
    values = [group.value for group in groups]
    worst, best = ends[int(np.argmin(values))], ends[int(np.argmax(values))]
    return best[0] - worst[1], best[1] - worst[0]
