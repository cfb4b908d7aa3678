"""What fits into so many minutes of certifying."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from linear_smoothing import SIGMA, Plane, problem

from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.evaluation import CertificationQuestion, certification_planning
from robustness_lib.evaluation.certification_planning import (
    CertificationCosts,
    measure_certification,
    plan_certification,
)

QUESTION = CertificationQuestion((0.5,))
COSTS = CertificationCosts(0.0001, np.array([[200, 200, 400, 400, 300, 300, 100, 2000, 9000, 10_000]]), 10_000, 0.6)


def test_all_votes_if_a_hundred_images_fit() -> None:
    one = COSTS.of_one(QUESTION)
    fits = plan_certification(COSTS, QUESTION, SIGMA, 100 * one / 60 * 1.001, 500)
    assert (fits.votes, fits.n) == (100_000, 100)
    assert fits.seconds == pytest.approx(100 * one)
    assert fits.all_seconds == pytest.approx(500 * one)
    fewer = plan_certification(COSTS, QUESTION, SIGMA, 99 * one / 60, 500)
    assert fewer.votes < 100_000
    assert fewer.n >= 100
    assert fewer.seconds <= 99 * one
    everything = plan_certification(COSTS, QUESTION, SIGMA, 1000 * one / 60, 500)
    assert (everything.n, everything.all_seconds) == (500, 0)
    assert plan_certification(COSTS, QUESTION, SIGMA, 30.1 * one / 60, 30).votes == 100_000  # all there are


def test_an_image_that_was_not_decided_in_the_pilot_takes_all_votes() -> None:
    draws = np.full((1, 10), 300)
    assert CertificationCosts(1.0, draws, 10_000, 0.6).of_one(QUESTION) == pytest.approx(1.2 * (300 + 100 + 1000))
    assert CertificationCosts(1.0, draws, 300, 0.6).of_one(QUESTION) == pytest.approx(1.2 * (100_000 + 100 + 1000))
    curve = CertificationQuestion(curve=True, n=200)
    assert CertificationCosts(1.0, draws, 10_000, 0.6).of_one(curve) == pytest.approx(1.2 * 300)


def test_words() -> None:
    fits = plan_certification(COSTS, QUESTION, SIGMA, 1, 500)
    words = str(fits)
    assert f"{fits.n} images with up to {fits.votes:,} votes each (and not 100,000" in words
    low, high = (100 * end for end in fits.interval)
    assert f"If 60 % are certified, as of the 10 in a pilot, the 95 % interval will be about {low:.0f}–{high:.0f} %" \
        in words
    assert "On all 500 with 100,000 votes it would take about" in words


def test_too_little_time() -> None:
    with pytest.raises(ValueError, match=r"0\.001 minutes are too few: 10 images with 1,562 votes take about"):
        plan_certification(COSTS, QUESTION, SIGMA, 0.001, 500)
    least = CertificationQuestion((0.8,)).least_votes(SIGMA)
    with pytest.raises(ValueError, match="too few") as error:  # votes that certify nothing save no time
        plan_certification(COSTS, CertificationQuestion((0.8,), n=100_000), SIGMA, 0.001, 500)
    votes = int(str(error.value).split("with ")[1].split()[0].replace(",", ""))
    assert least > 5000
    assert votes >= 2 * least


def test_measured_on_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    _, x, y = problem(20, nearest=0.1, farthest=0.7)
    smoothing = RandomizedSmoothing(Plane().eval(), SIGMA)
    monkeypatch.setattr(certification_planning, "_seconds_of_a_vote", lambda *given: 1e-5)
    costs = measure_certification(smoothing, x, y, CertificationQuestion((0.4, 0.2), n=3000, seed=4), minutes=1)
    ours = smoothing.certified_at(x[:10], 0.2, budget=3000, seed=3, progress=False)
    assert costs.limit == 3000
    assert costs.draws.shape == (2, 10)
    assert costs.draws[1].tolist() == ours.draws.tolist()
    assert costs.share == ours.accuracy(y[:10], 0.2).value  # of the smaller radius
    # No more than a part of the time goes into it.
    drawn: list[int] = []
    predict = RandomizedSmoothing.certified_at

    def counted(self, images, *given, **settings):
        found = predict(self, images, *given, **settings)
        drawn.append(int(found.samples.sum()))
        return found

    monkeypatch.setattr(RandomizedSmoothing, "certified_at", counted)
    short = measure_certification(smoothing, x, y, CertificationQuestion((0.2,)), minutes=0.01)
    assert sum(drawn) * 1e-5 <= 0.15 * 0.6
    assert short.draws.shape[1] < 10
    for wrong in (0, -1.0):
        with pytest.raises(ValueError, match="more than 0"):
            measure_certification(smoothing, x, y, QUESTION, wrong)
    with pytest.raises(ValueError, match="no number of votes could"):
        measure_certification(smoothing, x, y, CertificationQuestion((3.0,)), 1)


def test_the_time_for_a_vote() -> None:
    class Slow(Plane):
        seen = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen += len(images)
            return super().forward(images)

    _, x, _ = problem(2)
    clock = Slow().eval()
    original = certification_planning.time.perf_counter

    def ticks() -> float:
        return 0.01 * clock.seen

    certification_planning.time.perf_counter = ticks
    try:
        seconds = certification_planning._seconds_of_a_vote(RandomizedSmoothing(clock, SIGMA), x, None)
    finally:
        certification_planning.time.perf_counter = original
    assert seconds == pytest.approx(0.01)
