import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from robustness_lib.statistics import (
    Accuracy,
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
