"""How many votes are enough: rules that look at the votes for a class as they come in, and say what they prove.

A bound that holds for one number of draws, fixed beforehand, does not hold for whoever looks again and again and stops
when he likes what he sees. Each rule here pays for its looks: it is wrong with probability at most alpha over all of
them together.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaincinv, ndtr, ndtri

from robustness_lib.certify.betting import log_wealth_above, log_wealth_below, shown
from robustness_lib.statistics import lower_bounds

__all__ = ["Judgment", "RadiusAtLeast", "RadiusWithin", "Simulated", "StoppingRule", "certified_radius", "least_draws"]

Counts = NDArray[np.int64]
Radii = NDArray[np.float64]
Flags = NDArray[np.bool_]

_UNLIKELY = 0.001  # a gain that further draws would bring less often than this is not waited for
_FIRST_LOOK, _GROWTH = 200, 1.3  # draws at the first of several looks, and from look to look


def certified_radius(hits: Counts, draws: int, alpha: float, sigma: float) -> Radii:
    """The L2 radius (N,) within which the smoothed answer is constant (Cohen et al. 2019): σΦ⁻¹ of the exact one-sided
    lower bound for the share of the class. 0 where the bound is not above ½: that is no certificate.

    hits: (N,) votes for the class among `draws`, whose number was fixed beforehand, and which did not choose the class.
    """
    bounds = lower_bounds(hits, draws, alpha)
    radius: Radii = np.where(bounds > 0.5, sigma * ndtri(np.maximum(bounds, 0.5)), 0.0)
    return radius


def least_draws(share: float, alpha: float) -> float:
    """The fewest draws that, all of them hits, show more than this share at level alpha: infinite for a share of 1."""
    if share >= 1:
        return math.inf
    n = math.floor(math.log(alpha) / math.log(share))
    return n + 1 if alpha ** (1 / max(n, 1)) <= share else max(n, 1)


class Judgment(NamedTuple):
    """Of each image, (N,): whether anything is proved, the radius that is (else 0), and whether it is done."""

    proved: Flags
    radius: Radii
    done: Flags


class Simulated(NamedTuple):
    """Of each image, (N,): what was proved, after how many draws, and the votes among as many as the rule takes at
    most. (The same draws go on, so that a rule of one look can be held against this one.)"""

    proved: Flags
    radius: Radii
    draws: Counts
    votes: Counts


class StoppingRule(ABC):
    """looks: numbers of draws, ascending, after which the votes are looked at; the last is the most that is drawn."""

    looks: Sequence[int]

    @abstractmethod
    def judge(self, hits: Counts, draws: int) -> Judgment:
        """After `draws` draws, one of the looks, of which hits (N,) fell to the class."""

    def simulate(self, shares: Radii, seed: int = 0) -> Simulated:
        """What it would say, and after how many draws, of images whose shares of votes (N,) are known."""
        random = np.random.default_rng(seed)
        found = Simulated(np.zeros(len(shares), dtype=bool), np.zeros(len(shares)),
                          np.zeros(len(shares), dtype=np.int64), np.zeros(len(shares), dtype=np.int64))
        left, before = np.arange(len(shares)), 0
        for look in self.looks:
            found.votes[left] += random.binomial(look - before, shares[left])
            found.draws[left] = before = look
            found.proved[left], found.radius[left], done = self.judge(found.votes[left], look)
            left = left[~done]
            if len(left) == 0:
                break
        rest = random.binomial(self.looks[-1] - found.draws, shares)
        return found._replace(votes=found.votes + rest)


class RadiusWithin(StoppingRule):
    """As large a radius as n draws prove; with a tolerance or up_to, no more draws than it takes.

    tolerance: an image is done when n draws would hardly (in less than one case of a thousand) prove a radius larger by
    more than this. up_to: or when its radius reaches this. Without either, the only look is after n draws.

    Looks at growing numbers of draws, each with an exact bound of its own: half of alpha goes to the last, the other
    half in equal parts to those before (the union bound). between: what the numbers before the last are multiples of.
    """

    def __init__(self, sigma: float, n: int, alpha: float, tolerance: float | None = None, up_to: float | None = None,
                 between: int = 1) -> None:
        self.sigma, self.n, self.tolerance = sigma, n, -math.inf if tolerance is None else tolerance
        self.up_to = math.inf if up_to is None else up_to
        looks = [n]
        while (tolerance is not None or up_to is not None) and looks[0] / _GROWTH >= _FIRST_LOOK:
            looks.insert(0, int(looks[0] / _GROWTH) // between * between)
        self.looks = looks
        self.alpha_last = alpha if len(looks) == 1 else alpha / 2
        self.alpha_before = alpha / 2 / max(1, len(looks) - 1)

    def judge(self, hits: Counts, draws: int) -> Judgment:
        last = draws == self.n
        radius = certified_radius(hits, draws, self.alpha_last if last else self.alpha_before, self.sigma)
        if last:
            return Judgment(radius > 0, radius, np.ones(len(hits), dtype=bool))
        most = np.ceil(self.n * betaincinv(*_final_share(hits, draws, self.n), 1 - _UNLIKELY)).astype(np.int64)
        attainable = certified_radius(np.minimum(most, self.n - (draws - hits)), self.n, self.alpha_last, self.sigma)
        done = (attainable <= 0) | (attainable - radius <= self.tolerance) | (radius >= self.up_to)
        return Judgment(radius > 0, radius, done)


class RadiusAtLeast(StoppingRule):
    """Whether this one radius is proved, after as few draws as that takes, `budget` at most.

    A bet against "the radius is smaller" may be looked at as often as one likes. It has half of alpha; the other half
    goes to the exact bound after the whole budget, on the same draws, which near the largest radius proves what the
    bet cannot yet. An image is given up where a bet the other way wins, and where the whole budget would hardly prove
    it any more: that is no certificate of anything.
    """

    def __init__(self, sigma: float, radius: float, budget: int, alpha: float, between: int) -> None:
        self.radius, self.budget, self.alpha = radius, budget, alpha / 2
        self.share = float(ndtr(radius / sigma))
        self.least = _least_hits(budget, self.share, self.alpha)
        self.looks = [*range(between, budget, between), budget]

    def judge(self, hits: Counts, draws: int) -> Judgment:
        proved = shown(log_wealth_above(hits, draws, self.share), self.alpha)
        if draws == self.budget:
            proved |= hits >= self.least
            return Judgment(proved, np.where(proved, self.radius, 0.0), np.ones(len(hits), dtype=bool))
        given_up = shown(log_wealth_below(hits, draws, self.share), self.alpha)
        given_up |= draws - hits > self.budget - self.least
        given_up |= betaincc(*_final_share(hits, draws, self.budget), (self.least - 0.5) / self.budget) < _UNLIKELY
        return Judgment(proved, np.where(proved, self.radius, 0.0), proved | given_up)


def _least_hits(n: int, share: float, alpha: float) -> int:
    """Of n draws, from which on the exact bound reaches the share; n + 1 where no number does."""
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if lower_bounds(middle, n, alpha) >= share else (middle + 1, high)
    return low


def _final_share(hits: Counts, draws: int, n: int) -> tuple[Radii, Radii]:
    """What the share of hits will be after n draws, as far as one can tell after fewer: the parameters of a Beta
    distribution with the mean and the variance of the posterior predictive one (from Jeffreys' prior)."""
    rest, a, b = n - draws, hits + 0.5, draws - hits + 0.5
    p = a / (a + b)
    mean = (hits + rest * p) / n
    variance = rest * p * (1 - p) * (a + b + rest) / (a + b + 1) / n**2
    size = np.maximum(mean * (1 - mean) / variance - 1, 1e-9)
    return mean * size, (1 - mean) * size
