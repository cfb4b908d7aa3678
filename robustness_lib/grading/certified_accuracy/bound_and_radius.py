"""Checks of `certified_accuracy` on the lower bound of a share, and on the radius that follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import binom, norm

from robustness_lib.grading.certified_accuracy.variants import FIRST, FORBIDDEN, CertifiedAccuracyTask
from robustness_lib.grading.given import certified_accuracy as given
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import is_number
from robustness_lib.grading.steps import step

__all__ = ["certified_radius", "lower_bound"]


@step(points=3, shares=8, forbidden=FORBIDDEN)
def lower_bound(mine: Callable[..., float], task: CertifiedAccuracyTask = FIRST,
                cases: Sequence[tuple[int, int, float]] = ((60, 100, 0.05), (95, 100, 0.001), (300, 500, 0.01)),
                ) -> Iterator[Observation]:
    """The bound: above the true share with probability α at most, and as large as that allows."""
    bounds = [mine(*case) for case in cases]
    if not all(is_number(bound) for bound in bounds):
        yield wrong(f"returns {bounds[0]!r}: return one number, the bound")
        return
    # That many hits or more would have probability α exactly if the share were the bound: no beta distribution here.
    tails = [float(binom.sf(hits - 1, n, bound)) for bound, (hits, n, _) in zip(bounds, cases, strict=True)]
    exact = all(abs(tail / alpha - 1) < 1e-3 for tail, (_, _, alpha) in zip(tails, cases, strict=True))
    hits, n, alpha = cases[0]
    yield need(exact, f"{hits} of {n} hits, α = {alpha:g}: the share is at least {bounds[0]:.4f}, one-sided and exact",
               f"{hits} of {n} hits, α = {alpha:g}: {bounds[0]:.4f} is not Clopper and Pearson's bound. "
               + _what_bound([float(bound) for bound in bounds], cases), share=4)
    honest = all(_too_high(mine, share, 40, 0.05) <= 0.05 + 1e-9 for share in (0.5, 0.7, 0.9, 0.97))
    yield need(honest, "never above the true share more often than α",
               "lies above the true share more often than α = 5 % (40 votes, shares .5, .7, .9 and .97)", share=2)
    all_hits = mine(n, n, alpha)
    yield need(is_number(all_hits) and abs(all_hits - alpha ** (1 / n)) < 1e-6, "where all agree: α to the 1/n",
               f"where all {n} votes agree the bound is {alpha ** (1 / n):.4f}, below 1, and not {all_hits:.4f}")
    none = mine(0, n, alpha)
    yield need(is_number(none) and none == 0, "where nobody votes for the class: 0",
               f"where no vote falls to the class the bound is 0, and not {none}: beta has no quantile there")


def _too_high(mine: Callable[..., float], share: float, n: int, alpha: float) -> float:
    """How often the bound lies above this share: summed over all counts of hits, not sampled."""
    hits = np.arange(n + 1)
    above = np.array([not mine(int(h), n, alpha) <= share for h in hits])
    return float(binom.pmf(hits, n, share)[above].sum())


def _what_bound(bounds: list[float], cases: Sequence[tuple[int, int, float]]) -> str:
    """Words for what was probably computed instead."""
    def all_are(other: Callable[[int, int, float], float]) -> bool:
        return all(abs(bound - other(*case)) < 1e-6 for bound, case in zip(bounds, cases, strict=True))

    def normal(z_of: float) -> Callable[[int, int, float], float]:
        return lambda h, n, a: h / n + float(norm.ppf(a / z_of)) * math.sqrt(h / n * (1 - h / n) / n)

    if all_are(lambda h, n, a: h / n):
        return "It is the share of the votes itself, which is too high about every second time"
    if all_are(lambda h, n, a: given.lower_bound(h, n, a / 2)):
        return "It is the lower end of a two-sided interval, made with α/2: only too high does harm, so all of α is " \
               "for that side"
    if all_are(normal(1)) or all_are(normal(2)):
        return "It is the normal approximation, which says too much for shares near 1: take a quantile of beta"
    if all_are(lambda h, n, a: given.lower_bound(h, n, 1 - a)):
        return "α is the probability to be wrong, and 1 − α was used in its place"
    if all_are(lambda h, n, a: given.lower_bound(h + 1, n, 1 - a)):
        return "It is the upper bound"
    if all(bound > h / n for bound, (h, n, _) in zip(bounds, cases, strict=True)):
        return "It lies above the share of the votes: a lower bound lies below. Is α mixed up with 1 − α?"
    return "It is the α-quantile of a beta distribution: which two parameters?"


@step(points=2, shares=5, forbidden=FORBIDDEN)
def certified_radius(mine: Callable[..., float], task: CertifiedAccuracyTask = FIRST,
                     lowers: tuple[float, ...] = (0.6, 0.8, 0.93, 0.999),
                     sigmas: tuple[float, ...] = (0.25, 0.5)) -> Iterator[Observation]:
    """The radius: σ times the normal quantile of the bound, and none without a majority."""
    cases = [(lower, sigma) for lower in lowers for sigma in sigmas]
    found = [mine(*case) for case in cases]
    if not all(is_number(radius) for radius in found):
        yield wrong(f"returns {next(one for one in found if not is_number(one))!r}: return one number, the radius")
        return
    # Turned round: a normal variable stays below R/σ with probability `lower`.
    back = [(1 + math.erf(radius / sigma / math.sqrt(2))) / 2 for radius, (_, sigma) in zip(found, cases, strict=True)]
    exact = all(abs(share - lower) < 1e-6 for share, (lower, _) in zip(back, cases, strict=True))
    lower, sigma = cases[-1]
    yield need(exact, f"a share of at least {lower:g} under σ = {sigma:g}: R = {found[-1]:.3f}",
               f"a share of at least {lower:g} under σ = {sigma:g} gives R = {sigma * norm.ppf(lower):.3f}, and not "
               f"{found[-1]:.3f}. " + _what_radius([float(one) for one in found], cases), share=3)
    bare = [mine(low, sigmas[0]) for low in (0.5, 0.4, 0.05, 0.0)]
    fine = all(is_number(one) and one == 0 for one in bare)
    yield need(fine, "none without a majority", "where the share may be ½ or less nothing is certified: the radius is "
               f"0, and not {next((one for one in bare if one != 0), 0)}", share=2)


def _what_radius(found: list[float], cases: list[tuple[float, float]]) -> str:
    def all_are(other: Callable[[float, float], float]) -> bool:
        return all(abs(radius - other(*case)) < 1e-6 for radius, case in zip(found, cases, strict=True))

    if all_are(lambda low, sigma: float(norm.ppf(low))):
        return "σ is missing"
    if all_are(lambda low, sigma: sigma / 2 * float(norm.ppf(low))):
        return "It is half of that: the ½ belongs to the difference of two classes, Φ⁻¹(p) − Φ⁻¹(1 − p), which is " \
               "2Φ⁻¹(p)"
    if all_are(lambda low, sigma: 2 * sigma * float(norm.ppf(low))):
        return "It is twice that: with Φ⁻¹(p) − Φ⁻¹(1 − p) goes the factor σ/2"
    if all_are(lambda low, sigma: float(norm.ppf(low)) / 2) or all_are(lambda low, sigma: 2 * float(norm.ppf(low))):
        return "σ is missing, and a factor"
    if all_are(lambda low, sigma: sigma**2 * float(norm.ppf(low))):
        return "σ is squared"
    if all_are(lambda low, sigma: sigma * float(norm.cdf(low))):
        return "Φ was taken for its inverse: norm.ppf, not norm.cdf"
    return "It is σ times the quantile norm.ppf of the bound"
