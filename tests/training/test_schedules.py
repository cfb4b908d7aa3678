"""Learning rates, step by step."""

import math
from itertools import pairwise

import pytest
import torch
from torch.optim import SGD, AdamW

from robustness_lib.training import OneCycle, Piecewise


def rates(schedule, epochs, steps, kind=AdamW, **settings):
    """The learning rate of each step, and Adam's first β (or SGD's momentum)."""
    optimizer = kind([torch.nn.Parameter(torch.zeros(1))], lr=schedule.start, **settings)
    scheduler = schedule.build(optimizer, epochs, steps)
    rate, momentum = [], []
    for _ in range(epochs * steps):
        group = optimizer.param_groups[0]
        rate.append(group["lr"])
        momentum.append(group["betas"][0] if kind is AdamW else group["momentum"])
        optimizer.step()
        scheduler.step()
    return rate, momentum


def test_one_cycle_starts_low_peaks_and_ends_near_nothing():
    rate, momentum = rates(OneCycle(2e-3, warm_up=0.3), epochs=5, steps=20)
    assert len(rate) == 100
    assert rate[0] == pytest.approx(2e-3 / 25)
    assert rate.index(max(rate)) == 29  # the last step of the first 30 %
    assert max(rate) == pytest.approx(2e-3)
    assert rate[-1] == pytest.approx(2e-3 / 25 / 1e4)
    assert all(a < b for a, b in pairwise(rate[:30]))
    assert all(a > b for a, b in pairwise(rate[29:]))
    assert rate[10] == pytest.approx(2e-3 / 25 + (2e-3 - 2e-3 / 25) * (1 - math.cos(math.pi * 10 / 29)) / 2)
    assert momentum[0] == max(momentum)
    assert momentum[29] == min(momentum)


def test_one_cycle_with_sgd():
    rate, momentum = rates(OneCycle(0.1, warm_up=0.5), 2, 10, SGD, momentum=0.9, nesterov=True)
    assert rate.index(max(rate)) == momentum.index(min(momentum)) == 9


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (1, 4), (2, 2), (4, 1), (1, 5), (10, 1)])
@pytest.mark.parametrize("warm_up", [0.1, 0.2, 0.25, 0.3, 0.5, 0.99])
def test_one_cycle_for_very_few_steps(epochs, steps, warm_up):
    rate, _ = rates(OneCycle(1e-2, warm_up), epochs, steps)
    assert all(0 < value <= 1e-2 * (1 + 1e-9) for value in rate)


def test_piecewise_falls_at_its_milestones():
    rate, _ = rates(Piecewise(0.1, (1, 2.5), factor=0.1), epochs=4, steps=4)
    assert rate == pytest.approx([0.1] * 4 + [0.01] * 6 + [0.001] * 6)


def test_piecewise_rounds_a_milestone_up_to_a_whole_step():
    rate, _ = rates(Piecewise(1.0, [0.5], factor=0.5), epochs=1, steps=5)
    assert rate == [1.0] * 3 + [0.5] * 2


def test_piecewise_without_milestones_is_constant():
    assert rates(Piecewise(0.05), 2, 3)[0] == [0.05] * 6


def test_milestones_after_the_end_are_never_reached():
    assert rates(Piecewise(0.05, (7,)), 2, 3)[0] == [0.05] * 6


def test_schedules_are_values():
    assert Piecewise(0.1, [1, 2]) == Piecewise(0.1, (1, 2))
    assert hash(Piecewise(0.1, [1, 2])) == hash(Piecewise(0.1, (1, 2)))
    assert OneCycle() == OneCycle(2e-3, 0.3)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: OneCycle(0), "peak must be positive and finite; found 0"),
    (lambda: OneCycle(-1e-3), "peak"),
    (lambda: OneCycle(math.inf), "peak"),
    (lambda: OneCycle(math.nan), "peak"),
    (lambda: OneCycle(1e-3, 0), "warm_up is a share"),
    (lambda: OneCycle(1e-3, 1), "warm_up is a share"),
    (lambda: OneCycle(1e-3, math.nan), "warm_up is a share"),
    (lambda: Piecewise(0), "start must be positive"),
    (lambda: Piecewise(0.1, factor=0), "factor"),
    (lambda: Piecewise(0.1, (2, 1)), "milestones must be positive and grow"),
    (lambda: Piecewise(0.1, (0, 1)), "milestones"),
    (lambda: Piecewise(0.1, (-1,)), "milestones"),
])
def test_wrong_settings_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
