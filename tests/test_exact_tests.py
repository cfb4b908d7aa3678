"""Exact tests against scipy and against counting every case."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil

import pytest
from scipy.stats import binomtest

from robustness_lib.statistics import ALPHA, clopper_pearson, images_to_show_a_drop, images_to_show_below, mcnemar

COUNTS = [(0, 0), (1, 0), (0, 1), (5, 0), (4, 0), (3, 3), (17, 6), (6, 17), (40, 15), (250, 200), (5000, 4800)]


@pytest.mark.parametrize(("lost", "gained"), COUNTS)
def test_it_is_scipys_binomial_test(lost: int, gained: int) -> None:
    for alternative in ("two-sided", "greater"):
        expected = binomtest(lost, lost + gained, 0.5, alternative=alternative).pvalue if lost + gained else 1.0
        assert mcnemar(lost, gained, alternative) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("discordant", range(1, 13))
def test_it_counts_every_case(discordant: int) -> None:
    """Each of the 2^n ways in which the discordant images could have gone, one by one."""
    cases = [sum(way) for way in product((0, 1), repeat=discordant)]
    for lost in range(discordant + 1):
        one_sided = sum(case >= lost for case in cases) / len(cases)
        away = abs(2 * lost - discordant)
        two_sided = sum(abs(2 * case - discordant) >= away for case in cases) / len(cases)
        assert mcnemar(lost, discordant - lost, "greater") == pytest.approx(one_sided, rel=1e-12)
        assert mcnemar(lost, discordant - lost) == pytest.approx(two_sided, rel=1e-12)


def test_where_five_in_a_hundred_lies() -> None:
    assert mcnemar(4, 0, "greater") == 1 / 16
    assert mcnemar(5, 0, "greater") == 1 / 32
    assert mcnemar(5, 0) == 1 / 16
    assert mcnemar(0, 0) == mcnemar(0, 0, "greater") == mcnemar(0, 9, "greater") == 1


@pytest.mark.parametrize(("lost", "gained", "n"), [(3, 0, 100), (4, 0, 1000), (20, 12, 1000), (7, 4, 50), (2, 1, 3),
                                                   (1, 0, 7), (5, 5 - 1, 40)])
def test_the_smallest_n_that_shows_a_drop_is_the_first_of_all(lost: int, gained: int, n: int) -> None:
    def decides(m: int) -> bool:
        k, g = lost * m // n, ceil(Fraction(gained * m, n))
        return bool(binomtest(k, k + g, 0.5, alternative="greater").pvalue < ALPHA) if k + g else False

    assert images_to_show_a_drop(lost, gained, n) == next(m for m in range(1, 100_000) if decides(m))


def test_numbers_by_hand() -> None:
    # Five losses and no gain are needed, at 3 in 100: 166 images expect 4.98, 167 images 5.01.
    assert images_to_show_a_drop(3, 0, 100) == 167
    # With no right one the upper end is 1 − .025^(1/n), below .5 from 6 on.
    assert images_to_show_below(0, 3, 0.5) == 6


def test_where_no_number_would_do() -> None:
    assert images_to_show_a_drop(3, 3, 100) is images_to_show_a_drop(2, 3, 100) is None
    assert images_to_show_below(45, 100, Fraction(45, 100)) is images_to_show_below(3, 3, 1) is None
    assert images_to_show_below(0, 10, 0) is None


@pytest.mark.parametrize(("correct", "n", "floor"), [(44, 100, 0.45), (0, 1, 0.2), (3, 20, 0.2), (2, 3, 0.7),
                                                     (99, 100, 1), (1, 10, 0.1001)])
def test_the_smallest_n_that_shows_a_share_below_a_floor(correct: int, n: int, floor: float) -> None:
    found = images_to_show_below(correct, n, floor)
    assert found is not None

    def decides(m: int) -> bool:
        return clopper_pearson(ceil(Fraction(correct * m, n)), m)[1] < floor

    assert decides(found)
    before = range(1, found) if found < 3000 else range(found - 1000, found)
    assert not any(decides(m) for m in before)


def test_large_counts_take_no_time() -> None:
    found = images_to_show_a_drop(100_001, 100_000, 1_000_000)
    assert found is not None
    assert found > 10**11


@pytest.mark.parametrize(("function", "arguments"), [
    (mcnemar, (-1, 2)), (mcnemar, (2, -1)), (mcnemar, (2, 1, "less")), (images_to_show_a_drop, (0, 0, 10)),
    (images_to_show_a_drop, (6, 5, 10)), (images_to_show_a_drop, (-1, 5, 10)), (images_to_show_a_drop, (5, -1, 10)),
    (images_to_show_below, (4, 3, 0.5)), (images_to_show_below, (-1, 3, 0.5)), (images_to_show_below, (0, 0, 0.5)),
    (images_to_show_below, (1, 3, 1.5))])
def test_nonsense_is_refused(function, arguments) -> None:
    with pytest.raises(ValueError, match=r"found"):
        function(*arguments)
