"""Bets on a share of hits: fair under the hypothesis, to the last bit; and what they earn against it."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom

from robustness_lib.certify.betting import log_wealth_above, log_wealth_below, shown

SHARES = (0.5, 0.8413, 0.977, 0.99968)


def by_integration(hits, draws, share):
    """The mixture over (share, 1] by quadrature; p = sin², under which Jeffreys' prior is flat."""
    low = math.asin(math.sqrt(share))

    def likelihood(angle):
        return math.sin(angle) ** (2 * hits) * math.cos(angle) ** (2 * (draws - hits))

    mean = quad(likelihood, low, math.pi / 2, epsabs=0, epsrel=1e-10, limit=200)[0] / (math.pi / 2 - low)
    return math.log(mean) - hits * math.log(share) - (draws - hits) * math.log(1 - share)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(("hits", "draws"), [(0, 1), (1, 1), (5, 10), (48, 50), (50, 50), (197, 200)])
def test_wealth_is_the_mean_of_likelihood_ratios(hits, draws, share):
    assert log_wealth_above(hits, draws, share) == pytest.approx(by_integration(hits, draws, share), abs=1e-6)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("draws", [1, 2, 7, 50, 400])
def test_the_game_is_fair_where_the_share_is_just_that(draws, share):
    """Nobody gains on average at the edge of the hypothesis, and one loses inside it."""
    hits = np.arange(draws + 1)
    wealth = np.exp(log_wealth_above(hits, draws, share))
    assert (binom.pmf(hits, draws, share) * wealth).sum() == pytest.approx(1, abs=1e-9)
    assert (binom.pmf(hits, draws, 0.95 * share) * wealth).sum() < 1


@pytest.mark.parametrize("share", SHARES)
def test_below_is_above_on_the_misses(share):
    hits = np.arange(31)
    assert log_wealth_below(hits, 30, share) == pytest.approx(log_wealth_above(30 - hits, 30, 1 - share))


def test_half_of_the_bet_is_not_lost_on_the_wrong_side():
    """A prior on all of [0, 1] has spent its part below the share: at ½, half of what one has."""
    hits, draws, share = 990, 1000, 0.5
    everywhere = by_integration(hits, draws, share) + math.log(0.5)
    assert log_wealth_above(hits, draws, share) == pytest.approx(everywhere + math.log(2), abs=1e-6)


def test_it_does_not_break_far_out():
    wealth = log_wealth_above(np.array([0, 50_000, 99_990, 1_000_000]), np.array([10**5, 10**5, 10**5, 10**6]), 0.9)
    assert wealth[0] == -math.inf
    assert wealth[1] < -1000
    assert wealth[2] > 10_000
    assert wealth[3] > 100_000


def test_shown_is_from_one_over_alpha_on():
    assert shown(np.array([math.log(20) - 1e-9, math.log(20) + 1e-9]), 0.05).tolist() == [False, True]
