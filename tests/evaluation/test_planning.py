"""What fits into so many minutes."""

from __future__ import annotations

import pytest
import torch
from quick_auto_attack import problem

from robustness_lib import ThreatModel
from robustness_lib.evaluation.planning import Costs, Plan, measure, plan

COSTS = Costs(forward=0.0001, gradient=0.0003, clean=0.9, standing=0.6, classes=10)


def test_the_most_that_fits_is_chosen() -> None:
    for minutes in (1, 5, 15, 60):
        fits = plan(COSTS, minutes, 100_000, "standard")
        assert fits.seconds <= 60 * minutes < COSTS.seconds("standard", fits.n + 1)
    assert plan(COSTS, 600, 500).n == 500
    assert plan(COSTS, 15, 100_000).suite == "standard"


def test_quick_where_standard_fits_on_too_few() -> None:
    short = plan(COSTS, 1, 100_000)
    assert COSTS.seconds("standard", 100) > 60
    assert short.suite == "quick"
    assert short.n > 100
    assert plan(COSTS, 1, 100_000, "standard").n < 100  # where it is asked for by name
    assert plan(COSTS, 1, 10).suite == "standard"  # all there are fit


def test_several_processes_do_more() -> None:
    alone, four = plan(COSTS, 5, 100_000), plan(COSTS, 5, 100_000, processes=4)
    assert four.n >= 3.5 * alone.n
    assert four.seconds <= 300


def test_too_little_time_is_refused_with_the_time_it_takes() -> None:
    with pytest.raises(ValueError, match=r"0.0001 minutes are too few: the quick suite on 10 images takes about"):
        plan(COSTS, 0.0001, 1000)
    with pytest.raises(ValueError, match="must be more than 0"):
        plan(COSTS, 0, 1000)


def test_a_model_that_stands_costs_more_and_gives_another_interval() -> None:
    fragile = Costs(0.0001, 0.0003, 0.9, 0.05, 10)
    assert fragile.seconds("standard", 1000) < COSTS.seconds("standard", 1000) / 4
    words = str(Plan("standard", 1000, 90.0, COSTS))
    assert words == ("The standard suite on 1,000 images, about 90 seconds. If 60 % resist, as in a first look, the "
                     "95 % interval will be about 57–63 %.")


def test_costs_are_measured_on_the_model_and_leave_it_alone() -> None:
    model, x, y = problem()
    model.train()
    costs = measure(model, x, y, ThreatModel("linf", 0.05))
    assert model.training
    assert costs.classes == 6
    assert 0 < costs.forward < costs.gradient < 1
    assert costs.clean == pytest.approx((model(x).argmax(1) == y).float().mean())
    assert 0 < costs.standing < costs.clean
    detached = measure(lambda z: model(z).detach(), x, y, ThreatModel("linf", 0.05))
    assert detached.standing == pytest.approx(costs.clean)
    assert torch.is_grad_enabled()
