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


@pytest.mark.parametrize("standing", [0.0, 0.05, 0.3, 0.5, 0.64, 0.9, 1.0])
def test_standard_wherever_its_interval_is_narrow_enough(standing: float) -> None:
    costs = Costs(forward=0.0001, gradient=0.0003, clean=1.0, standing=standing, classes=10)
    chosen = [(minutes, plan(costs, minutes, 1000)) for minutes in (0.05, 0.1, 0.3, 0.5, 1, 2, 3, 4, 5, 8)]
    assert {fits.suite for _, fits in chosen} <= {"quick", "standard"}
    for minutes, fits in chosen:
        low, high = fits.interval
        if fits.suite == "standard":
            assert high - low <= 0.16
            assert fits.n == 1000 or costs.seconds("standard", fits.n + 1) > 60 * minutes
        else:
            most = next(n for n in range(1, 1000) if costs.seconds("standard", n) > 60 * minutes) - 1
            low, high = Plan("standard", most, 1.0, costs).interval
            assert most < 200  # with more it is always narrow enough
            assert high - low > 0.15  # (just below .16 where rounded counts make it jump)


def test_a_quick_look_says_what_a_verdict_would_take() -> None:
    slow = Costs(forward=0.0004, gradient=0.001, clean=0.9, standing=0.26, classes=10)
    for fits in (plan(slow, 1, 1000), plan(slow, 60, 1000, "quick")):
        assert fits.suite == "quick"
        (every, long), (few, short) = fits.verdict
        assert (every, few) == (1000, 127)
        assert long == slow.seconds("standard", 1000)
        assert short == slow.seconds("standard", 127)
        assert str(fits).endswith(
            f"That is a quick look and no verdict. A verdict (--suite standard) takes on 1,000 images about "
            f"{long / 60:.0f} minutes; on 127 images about {short / 60:.0f} minutes, for an interval of ±8 points.")
    assert plan(slow, 1, 1000, "quick", processes=2).verdict[0][1] == long / 2
    assert plan(slow, 1, 50).verdict == ((50, slow.seconds("standard", 50)),)
    with pytest.raises(ValueError, match=r"A verdict \(--suite standard\) takes on 1,000 images about"):
        plan(slow, 0.0001, 1000)


def test_a_verdict_on_a_part_says_what_the_whole_would_take() -> None:
    fits = plan(COSTS, 5, 1000)
    assert str(fits).endswith("On all 1,000 it would take about 16 minutes.")
    assert "On all" not in str(plan(COSTS, 60, 1000))
    assert plan(COSTS, 60, 1000, "random").verdict == ()


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


NAN = {
    "some": lambda x: x[:, 0, 0, 0] > x[:, 0, 0, 0].median(), "first": lambda x: torch.arange(len(x)) == 0,
    "last": lambda x: torch.arange(len(x)) == len(x) - 1, "all but one": lambda x: torch.arange(len(x)) != 5,
}


def answers_but(bad, *, fails: bool):
    """The model, and images of which it fails on some, or answers them NaN: those marked by a pixel of exactly 1."""
    model, x, y = problem()
    x = x.clamp(max=0.9)
    x[bad(x), 0, 0, 0] = 1.0

    def answers(z):
        lost = z[:, 0, 0, 0] == 1
        if fails and lost.any():
            raise RuntimeError("")
        return torch.where(lost[:, None], torch.nan, model(z))

    return model, answers, x, y


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("fails", [False, True], ids=["NaN", "fails"])
@pytest.mark.parametrize("bad", NAN)
def test_images_without_an_answer_are_left_out(bad: str, fails: bool, batch_size: int | None) -> None:
    model, answers, x, y = answers_but(NAN[bad], fails=fails)
    rest = x[:, 0, 0, 0] != 1
    costs = measure(answers, x, y, ThreatModel("linf", 0.05), batch_size)
    assert costs.clean == pytest.approx((model(x).argmax(1) == y)[rest].float().mean())
    assert 0 <= costs.standing <= costs.clean
    assert costs.gradient > 0


@pytest.mark.parametrize(("fails", "kind"), [(False, ValueError), (True, RuntimeError)])
def test_where_none_is_answered_it_is_said(fails: bool, kind: type[Exception]) -> None:
    _, answers, x, y = answers_but(lambda x: torch.ones(len(x), dtype=torch.bool), fails=fails)
    with pytest.raises(kind, match="^$" if fails else "returns NaN"):
        measure(answers, x, y, ThreatModel("linf", 0.05))


def test_a_label_out_of_range_is_still_one() -> None:
    _, answers, x, y = answers_but(NAN["some"], fails=False)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\.\. 5"):
        measure(answers, x, y + 6, ThreatModel("linf", 0.05))


def test_points_near_the_images_that_are_no_number_end_no_measurement() -> None:
    model, x, y = problem()
    costs = measure(lambda z: torch.where((z == x[:len(z)]).flatten(1).all(1)[:, None], model(z), torch.nan), x, y,
                    ThreatModel("linf", 0.05))
    assert costs.standing <= costs.clean
