import pytest
from scipy.stats import binom, binomtest

from robustness_lib.statistics import Accuracy, clopper_pearson


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
