"""Claims and their verdicts: where an interval lies in a range, what several measurements say together, and that the
intervals hold the truth as often as they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from robustness_lib.claims import (
    VERDICTS,
    Claim,
    Measurement,
    difference,
    judge,
    lost_share,
    median_interval,
    worst_and_best,
)
from robustness_lib.statistics import Accuracy

INF = math.inf


def measured(low, high, claimed=(20, 40), **more):
    return Measurement("signs", (low + high) / 2, (low, high), claimed, n=100, **more)


def claim(*measurements):
    return Claim("anchor", "words", ("source",), "command", "one seed", measurements)


@pytest.mark.parametrize(("interval", "verdict"), [
    ((25, 30), "holds here"), ((20, 40), "holds here"), ((19, 30), "cannot tell"), ((30, 41), "cannot tell"),
    ((10, 50), "cannot tell"), ((10, 19), "does not"), ((41, 50), "does not"), ((40, 50), "cannot tell"),
    ((-INF, 19), "does not"), ((-INF, 21), "cannot tell"),
])
def test_the_verdict_follows_from_where_the_interval_lies(interval, verdict):
    assert judge(interval, (20, 40)) == verdict


def test_a_claim_without_an_upper_end():
    assert [judge(each, (0, INF)) for each in ((1, 2), (-2, -1), (-1, 2))] == list(VERDICTS)


@pytest.mark.parametrize("interval", [(2, 1), (math.nan, 1), (0, math.nan)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match="must begin before it ends"):
        judge(interval, (0, 1))
    with pytest.raises(ValueError, match="claimed range must begin"):
        judge((0, 1), interval)


def test_a_bound_reaches_on():
    """After an attack that a stronger one may beat, less may be left than was seen, and never more."""
    assert measured(25, 30, bound="above").verdict == "cannot tell"
    assert measured(10, 19, bound="above").verdict == "does not"
    assert measured(41, 50, bound="above").verdict == "cannot tell"
    assert measured(41, 50, bound="below").verdict == "does not"
    assert measured(10, 19, bound="below").verdict == "cannot tell"


def test_a_verdict_that_another_rule_gave_is_kept():
    assert measured(25, 30, given="cannot tell").verdict == "cannot tell"


def test_all_must_hold_and_one_that_does_not_is_enough():
    """Also where most hold, and whatever their order."""
    one = {"holds here": measured(25, 30), "does not": measured(1, 2), "cannot tell": measured(30, 50)}
    for kinds in itertools.product(VERDICTS, repeat=3):
        expected = ("does not" if "does not" in kinds else
                    "cannot tell" if "cannot tell" in kinds else "holds here")
        assert claim(*(one[kind] for kind in kinds)).verdict == expected


def test_a_measurement_without_images_or_outside_its_interval_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        Measurement("signs", 1, (0, 2), (0, 1), n=0)
    with pytest.raises(ValueError, match="outside its interval"):
        Measurement("signs", 3, (0, 2), (0, 1), n=10)


@pytest.mark.parametrize("lacking", ["anchor", "words", "sources", "made", "seeds", "measurements"])
def test_a_claim_lacks_nothing(lacking):
    whole = {"anchor": "a", "words": "w", "sources": ("s",), "made": "m", "seeds": "one",
             "measurements": (measured(1, 2),)}
    Claim(**whole)
    with pytest.raises(ValueError, match=f"lacks {lacking}"):
        Claim(**whole | {lacking: type(whole[lacking])()})


def covered(interval_of, truth, n, p, q):
    """How often an interval holds the truth, over all pairs of independent counts of n images."""
    before, after = binom.pmf(np.arange(n + 1), n, p), binom.pmf(np.arange(n + 1), n, q)
    total = 0.0
    for i, j in itertools.product(range(n + 1), repeat=2):
        low, high = interval_of(Accuracy(i, n), Accuracy(j, n))
        total += before[i] * after[j] * (low <= truth <= high)
    return total


def of_lost(before, after):
    return lost_share(before, after) if before.correct else (-INF, INF)


@pytest.mark.parametrize(("p", "q"), [(0.9, 0.3), (0.5, 0.5), (0.95, 0.9), (1.0, 0.0)])
def test_intervals_of_two_shares_hold_the_truth(p, q):
    assert covered(difference, q - p, 25, p, q) >= 0.95
    assert covered(of_lost, 1 - q / p, 25, p, q) >= 0.95


def test_a_difference_also_holds_for_images_that_are_the_same():
    """Its two intervals hold at once whatever they have to do with each other: here the same images twice, or none."""
    n, p = 25, 0.6
    pmf = binom.pmf(np.arange(n + 1), n, p)
    same = sum(pmf[i] * (difference(Accuracy(i, n), Accuracy(i, n))[0] <= 0) for i in range(n + 1))
    opposite = sum(pmf[i] * (low <= 1 - 2 * p <= high) for i in range(n + 1)
                   for low, high in [difference(Accuracy(i, n), Accuracy(n - i, n))])
    assert min(same, opposite) >= 0.95


def test_the_share_lost_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing was right before"):
        lost_share(Accuracy(0, 10), Accuracy(0, 10))


@pytest.mark.parametrize("n", [6, 9, 40, 101])
def test_the_interval_of_a_median(n):
    """Exactly as wide as 95 % needs: it holds the true median at least that often, and the next one inward does not."""
    values = np.random.default_rng(0).permutation(n).astype(float)
    middle, (low, high) = median_interval(values)
    assert middle == np.median(values)
    assert low + high == n - 1
    missed = [2 * binom.cdf(low + inward, n, 0.5) for inward in (0, 1)]
    assert missed[0] <= 0.05 < missed[1]


def test_too_few_values_have_no_interval():
    for values in (range(5), [1.0, 2, 3, 4, 5, math.nan]):
        with pytest.raises(ValueError, match="at least six numbers"):
            median_interval(list(values))


def test_worst_and_best_of_groups_that_are_equal():
    """The best of ten equal groups looks better than the worst, and the interval must not believe it."""
    rng = np.random.default_rng(0)
    believed = 0
    for _ in range(400):
        low, high = worst_and_best([Accuracy(int(k), 50) for k in rng.binomial(50, 0.5, 10)])
        assert low <= high
        believed += low > 0
    assert believed <= 0.05 * 400


def test_worst_and_best_of_groups_that_differ():
    low, high = worst_and_best([Accuracy(14, 50), Accuracy(30, 50), Accuracy(45, 50)])
    assert 0 < low < 0.62 < high < 1
