import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from robustness_lib.statistics import (
    Accuracy,
    PairedTrainings,
    binomial_test,
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
)


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 50), (956, 1000), (9562, 10_000)])
def test_it_is_scipys_exact_interval(correct, n):
    for level in (0.9, 0.95, 0.99):
        expected = binomtest(correct, n).proportion_ci(level, method="exact")
        assert clopper_pearson(correct, n, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("truth", [0.02, 0.31, 0.5, 0.96])
def test_it_covers_the_truth_often_enough(truth):
    n = 80
    covered = sum(binom.pmf(k, n, truth) for k in range(n + 1)
                  if clopper_pearson(k, n)[0] <= truth <= clopper_pearson(k, n)[1])
    assert covered >= 0.95


def test_an_accuracy_always_says_n_and_interval():
    assert str(Accuracy(620, 1000)) == "62.0 % (95 %: 58.9–65.0, n = 1,000)"
    assert Accuracy(3, 4).value == 0.75


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (0, 0), (1, 2, 0.0), (1, 2, 1.0)])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"need|level"):
        clopper_pearson(*arguments)


def test_one_sided_bounds_are_the_ends_of_the_two_sided_interval_and_the_exact_test_inverted() -> None:
    for n in (1, 7, 200):
        for correct in range(0, n + 1, max(1, n // 5)):
            low, high = clopper_pearson_lower(correct, n, 0.05), clopper_pearson_upper(correct, n, 0.05)
            assert (low, high) == pytest.approx(clopper_pearson(correct, n, 0.9))
            # At the bound so many (so few) correct ones would be as rare as alpha.
            if correct:
                assert binom.sf(correct - 1, n, low) == pytest.approx(0.05)
            if correct < n:
                assert binom.cdf(correct, n, high) == pytest.approx(0.05)
    assert clopper_pearson_lower(10, 10, 0.001) == pytest.approx(0.001 ** 0.1)  # the closed form where all are right
    assert clopper_pearson_lower(0, 10, 0.001) == 0
    assert clopper_pearson_upper(10, 10, 0.001) == 1
    for wrong in ((-1, 5, 0.1), (6, 5, 0.1), (0, 0, 0.1), (1, 5, 0), (1, 5, 1)):
        with pytest.raises(ValueError, match="found"):
            clopper_pearson_lower(*wrong)
        with pytest.raises(ValueError, match="found"):
            clopper_pearson_upper(*wrong)


def test_the_binomial_test_is_scipys() -> None:
    for n in (1, 9, 150):
        for hits in range(n + 1):
            for share in (0.0, 0.01, 0.5, 1.0):
                expected = binomtest(hits, n, share, alternative="greater").pvalue
                assert binomial_test(hits, n, share) == pytest.approx(expected, abs=1e-12)
    for wrong in ((-1, 5, 0.5), (6, 5, 0.5), (1, 5, 1.5)):
        with pytest.raises(ValueError, match="found"):
            binomial_test(*wrong)


def test_accuracy_of_a_column() -> None:
    for column in (np.array([True, False, True]), torch.tensor([True, False, True])):
        assert Accuracy.of(column) == Accuracy(2, 3)


def stairs():
    """Three pairs of trainings and ten images: the change wins the first, the first two, the first three images."""
    after = np.arange(10) < np.array([[1], [2], [3]])
    return np.zeros_like(after), after


def test_paired_trainings_by_hand():
    paired = PairedTrainings.of(*stairs())
    assert paired.effect == pytest.approx(0.2)
    assert paired.error_of_trainings == pytest.approx(0.1 / 3 ** 0.5)
    by_image = np.array([1, 2 / 3, 1 / 3] + [0] * 7)
    assert paired.error_of_images == pytest.approx((((by_image - 0.2) ** 2).sum() / 9 / 10) ** 0.5)
    half = 4.302653 * 0.1 / 3 ** 0.5  # Student's t, two degrees of freedom
    assert paired.interval_on_these_images == pytest.approx((0.2 - half, 0.2 + half))
    both = (half ** 2 + (1.959964 * paired.error_of_images) ** 2) ** 0.5
    assert paired.interval == pytest.approx((0.2 - both, 0.2 + both))


def test_paired_trainings_change_sign_with_the_order_and_forget_what_both_share():
    before, after = stairs()
    there, back = PairedTrainings.of(before, after), PairedTrainings.of(after, before)
    assert back.effect == -there.effect
    assert back.interval == pytest.approx(tuple(-end for end in reversed(there.interval)))
    shared = PairedTrainings.of(before | (np.arange(10) > 7), after | (np.arange(10) > 7))
    assert shared == there


def test_no_difference_has_no_width():
    before, _ = stairs()
    assert PairedTrainings.of(before, before).interval == (0, 0)


def test_paired_trainings_hold_the_truth_as_often_as_they_say():
    """Trainings shift all images, and images gain or lose by themselves: both move the truth from what is seen."""
    random, held, narrow = np.random.default_rng(0), 0, 0
    for _ in range(1500):
        of_training = random.normal(0, 0.05, (5, 1))
        of_image = random.choice([-0.3, 0.3], (1, 200))
        won = random.random((5, 200)) < 0.5 + of_training + of_image
        paired = PairedTrainings.of(random.random((5, 200)) < 0.5, won)
        held += paired.interval[0] <= 0 <= paired.interval[1]
        narrow += paired.interval_on_these_images[0] <= 0 <= paired.interval_on_these_images[1]
    assert 0.95 < held / 1500 < 0.995
    assert narrow / 1500 < held / 1500 - 0.01  # blind to the images drawn


@pytest.mark.parametrize(("pairs", "power"), [(5, 0.8), (5, 0.5), (10, 0.9)])
def test_the_smallest_visible_effect_is_seen_that_often(pairs, power):
    effect = PairedTrainings(0.0, 1 / pairs ** 0.5, 0.0, pairs).smallest_visible(power)
    drawn = np.random.default_rng(1).normal(effect, 1, (40_000, pairs))
    half = PairedTrainings(0.0, 1.0, 0.0, pairs).interval[1] * drawn.std(1, ddof=1) / pairs ** 0.5
    assert (drawn.mean(1) > half).mean() == pytest.approx(power, abs=0.01)


def test_the_smallest_visible_effect_where_only_images_are_chance():
    assert PairedTrainings(0.0, 0.0, 0.01, 5).smallest_visible(0.8) == pytest.approx(0.01 * (1.959964 + 0.841621))
    with pytest.raises(ValueError, match="power"):
        PairedTrainings(0.0, 0.0, 0.01, 5).smallest_visible(80)


@pytest.mark.parametrize(("before", "after"), [
    (np.zeros((1, 9)), np.zeros((1, 9))), (np.zeros((3, 9)), np.zeros((3, 8))), (np.zeros(9), np.zeros(9)),
    (np.zeros((3, 1)), np.zeros((3, 1)))])
def test_paired_trainings_need_pairs(before, after):
    with pytest.raises(ValueError, match="found shapes"):
        PairedTrainings.of(before, after)
