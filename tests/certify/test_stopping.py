"""How many votes are enough: the fixed rule's numbers, and how much less the others take for the same answers."""

import math

import numpy as np
import pytest
from scipy.special import betaincinv, ndtri
from scipy.stats import binom

from robustness_lib.certify.stopping import RadiusAtLeast, RadiusWithin, certified_radius, least_draws

SIGMA, N = 0.25, 100_000
RADII = (0.25, 0.5, 0.75, 0.9)


@pytest.fixture(scope="module")
def log(smoothing_logs):
    """Published: per image the class predicted (−1: abstained), the radius and whether it was right."""
    rows = np.loadtxt(smoothing_logs / "cifar10-resnet110-sigma0.25.tsv", skiprows=1, usecols=(2, 3, 4))
    return rows[:, 0].astype(int), rows[:, 1], rows[:, 2] == 1


def counts_of(radii):
    """The votes among N that the published radii, of α = .01, stand for."""
    votes = np.arange(1, N + 1)
    table = SIGMA * ndtri(betaincinv(votes, N - votes + 1, 0.01))
    return votes[np.abs(table[None] - radii[:, None]).argmin(1)]


@pytest.fixture(scope="module")
def shares(log):
    """Each image's share of votes; where nothing was published, the two leading classes may be even."""
    predicted, radii, _ = log
    return np.where(predicted >= 0, counts_of(radii) / N, 0.5)


def test_the_published_radii_come_back_from_their_counts(log):
    predicted, radii, _ = log
    votes = counts_of(radii[predicted >= 0])
    assert len(votes) > 400
    assert certified_radius(votes, N, 0.01, SIGMA) == pytest.approx(radii[predicted >= 0], abs=5.1e-4)  # three digits


@pytest.mark.parametrize(("lost", "radius"), [(0, 0.978), (1, 0.955), (2, 0.941)])
def test_radii_of_no_one_and_two_lost_votes(lost, radius):
    assert certified_radius(np.array([N - lost]), N, 0.01, SIGMA) == pytest.approx(radius, abs=5e-4)


def test_99_of_100_votes_by_hand():
    assert certified_radius(np.array([99]), 100, 0.001, SIGMA) == pytest.approx(0.338, abs=1e-3)
    assert certified_radius(np.array([99_000]), N, 0.001, SIGMA) == pytest.approx(0.573, abs=2e-3)


def test_a_bound_that_is_not_above_a_half_certifies_nothing():
    votes = np.array([0, 1, 5000, N // 2, N // 2 + 100, N // 2 + 600])
    assert (certified_radius(votes, N, 0.001, SIGMA) > 0).tolist() == [False] * 5 + [True]
    assert (certified_radius(votes, N, 0.001, SIGMA) >= 0).all()


@pytest.mark.parametrize(("share", "alpha"), [(0.5, 0.001), (0.5, 0.05), (0.977, 0.0005), (0.9, 0.5), (0.999, 1e-9)])
def test_the_fewest_draws_that_show_anything(share, alpha):
    n = least_draws(share, alpha)
    assert binom.sf(n - 1, n, share) <= alpha * (1 + 1e-12)
    assert n == 1 or binom.sf(n - 2, n - 1, share) > alpha


def test_no_number_of_draws_shows_a_share_of_one():
    assert least_draws(1.0, 0.001) == math.inf
    assert least_draws(0.5, 0.001) == 10


@pytest.mark.parametrize(("n", "alpha", "share"), [(10, 0.05, 0.5), (1000, 0.0005, 0.977), (N, 0.0005, 0.99865)])
def test_the_last_stage_is_the_exact_bound_at_half_of_alpha(n, alpha, share):
    rule = RadiusAtLeast(SIGMA, SIGMA * ndtri(share), n, 2 * alpha, between=n)
    votes = np.arange(max(0, rule.least - 3), min(n, rule.least + 3) + 1)
    proved = rule.judge(votes, n).proved
    assert proved.tolist() == [binom.sf(v - 1, n, rule.share) <= alpha for v in votes]


# ---------------------------------------------------------------------------------------- against the fixed rule


@pytest.mark.parametrize("alpha", [0.001, 0.01])
@pytest.mark.parametrize("radius", RADII)
def test_the_decision_at_one_radius_against_the_fixed_rule(shares, radius, alpha):
    """On the same draws: as many certificates, up to two, for a fraction of the votes."""
    rule = RadiusAtLeast(SIGMA, radius, N, alpha, between=50)
    proved, _, draws, votes = rule.simulate(shares, seed=1)
    fixed = certified_radius(votes, N, alpha, SIGMA) >= radius
    assert proved.sum() >= fixed.sum() - 2
    assert draws.mean() <= {0.25: 1600, 0.5: 1700, 0.75: 6800, 0.9: 14_500}[radius]
    assert draws.max() <= N


@pytest.mark.parametrize(("tolerance", "times"), [(0.025, 5), (0.05, 10)])
def test_the_curve_to_within_a_tolerance(shares, tolerance, times):
    """Up to .75, where the published curve ends: radii as good as the fixed rule's, up to the tolerance, and a curve
    that lies within its interval, for a fraction of the votes on the images below."""
    _, found, draws, votes = RadiusWithin(SIGMA, N, 0.001, tolerance, 0.75, between=50).simulate(shares, seed=2)
    fixed = certified_radius(votes, N, 0.001, SIGMA)
    below = fixed < 0.75
    assert draws[below].mean() * times <= N
    assert (fixed - found)[below].max() <= 1.2 * tolerance
    assert (found[~below] >= 0.75 - tolerance).all()
    for radius in (0.25, 0.5) if tolerance > 0.025 else (0.001, 0.25, 0.5):
        mine, theirs = (found >= radius).sum(), (fixed >= radius).sum()
        low, high = binom.interval(0.95, len(shares), theirs / len(shares))
        assert low <= mine <= high


def test_without_a_tolerance_there_is_one_look_with_all_of_alpha():
    rule = RadiusWithin(SIGMA, 12_345, 0.001)
    assert rule.looks == [12_345]
    proved, radius, done = rule.judge(np.array([12_345, 12_000, 6000]), 12_345)
    assert proved.tolist() == [True, True, False]
    assert radius.tolist() == certified_radius(np.array([12_345, 12_000, 6000]), 12_345, 0.001, SIGMA).tolist()
    assert done.all()


def test_several_looks_share_alpha():
    rule = RadiusWithin(SIGMA, N, 0.001, 0.05, between=50)
    assert rule.looks[-1] == N
    assert all(look % 50 == 0 for look in rule.looks)
    assert sorted(set(rule.looks)) == list(rule.looks)
    assert rule.alpha_last + (len(rule.looks) - 1) * rule.alpha_before == pytest.approx(0.001)


def test_an_image_whose_votes_all_agree_is_done_at_up_to():
    _, radius, draws, _ = RadiusWithin(SIGMA, N, 0.001, None, 0.5, between=50).simulate(np.ones(3))
    assert (draws < 2000).all()
    assert (radius >= 0.5).all()


def test_what_cannot_be_shown_any_more_is_given_up():
    rule = RadiusAtLeast(SIGMA, 0.9, N, 0.001, between=50)
    lost = N - rule.least
    assert not rule.judge(np.array([60_000 - lost]), 60_000).done.any()
    assert rule.judge(np.array([60_000 - lost - 1]), 60_000).done.all()
    assert not rule.judge(np.array([60_000 - lost - 1]), 60_000).proved.any()


def test_radius_zero_is_a_question_too():
    rule = RadiusAtLeast(SIGMA, 0.0, 1000, 0.05, between=50)
    proved, radius, done = rule.judge(np.array([50, 25]), 50)
    assert proved.tolist() == [True, False]
    assert done.tolist() == [True, False]
    assert radius.tolist() == [0, 0]
