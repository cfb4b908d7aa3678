"""What fits into so many minutes of certifying: images and votes, and the interval that comes of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.evaluation.certification_question import CertificationQuestion
from robustness_lib.evaluation.planning import duration_words
from robustness_lib.statistics import clopper_pearson

__all__ = ["CertificationCosts", "CertificationPlan", "measure_certification", "plan_certification"]

_PILOT, _PILOT_SHARE = 10, 0.15  # images, and what they may take of the time
_ENOUGH = 100  # images: an interval of at most ±10 points; before it is wider, votes are saved
_FEWEST_VOTES = 1000
_SLACK = 1.2
_TIMED = 0.3  # seconds of votes, at least, that the time for one is measured on, but for quick nets
_MOST_TIMED = 12_800  # votes


@dataclass(frozen=True)
class CertificationCosts:
    """seconds: of one vote. draws: (questions, m) votes that bounded each image of a pilot. limit: how many an image
    could have there. share: of these images that were certified with their label, at the first radius or at σ."""

    seconds: float
    draws: NDArray[np.int64]
    limit: int
    share: float

    def of_one(self, question: CertificationQuestion) -> float:
        """Seconds for one image, a standard error above the pilot's mean. An image that had all that there was in the
        pilot would take all that there is."""
        draws = np.where(self.draws >= self.limit, question.n, np.minimum(self.draws, question.n)) + question.n0
        each = draws.sum(0) + question.answer_votes
        above = each.std() / math.sqrt(len(each))
        return float(_SLACK * self.seconds * min(each.mean() + above, each.max()))


@dataclass(frozen=True)
class CertificationPlan:
    """n images, with at most so many votes each (question.n), in so many seconds, as estimated. wanted: votes that were
    asked for. all_seconds: for all images that there are, by what was asked for; 0 where the plan takes them."""

    question: CertificationQuestion
    n: int
    seconds: float
    costs: CertificationCosts
    wanted: int
    available: int
    all_seconds: float = 0.0

    @property
    def votes(self) -> int:
        return self.question.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval to expect if as many are certified as in the pilot."""
        return clopper_pearson(round(self.costs.share * self.n), self.n)

    def __str__(self) -> str:
        low, high = self.interval
        votes = f"up to {self.question.n:,} votes each"
        if self.question.n < self.wanted:
            votes += f" (and not {self.wanted:,}, which certifies somewhat fewer)"
        said = (f"{self.n:,} images with {votes}, about {duration_words(self.seconds)}. If "
                f"{100 * self.costs.share:.0f} % are certified, as of the {self.costs.draws.shape[1]} in a pilot, the "
                f"95 % interval will be about {100 * low:.0f}–{100 * high:.0f} %.")
        if self.all_seconds:
            said += (f" On all {self.available:,} with {self.wanted:,} votes it would take about "
                     f"{duration_words(self.all_seconds)}.")
        return said


def measure_certification(smoothing: RandomizedSmoothing, x: Tensor, y: Tensor, question: CertificationQuestion,
                          minutes: float, batch_size: int | None = None) -> CertificationCosts:
    """Costs from votes that are timed, and from a pilot on at most ten images, with other noise than the question's and
    no more votes than a part of the minutes buys. x (N, ...), N ≥ 1, y (N,) int64. Raises what the question raises, and
    ValueError for minutes ≤ 0."""
    if not minutes > 0:
        raise ValueError(f"minutes must be more than 0; found {minutes}")
    stages = len(list(question.asked(smoothing)))
    question.check(smoothing, x)
    seconds = _seconds_of_a_vote(smoothing, x, batch_size)
    affordable = _PILOT_SHARE * 60 * minutes / seconds / stages
    limit = min(question.n, max(_fewest(question, smoothing.sigma), int(affordable / _PILOT) - question.n0))
    images = max(1, min(_PILOT, len(x), int(affordable / (limit + question.n0))))
    pilot = replace(question, n=limit, seed=question.seed - 1)
    found = [certify(x[:images], batch_size=batch_size, progress=False) for _, certify in pilot.asked(smoothing)]
    radius = min(question.radii) if question.radii else smoothing.sigma
    made = found[0] if question.curve else found[question.radii.index(radius)]
    return CertificationCosts(seconds, np.stack([one.draws.numpy() for one in found]), limit,
                              made.accuracy(y[:images], radius).value)


def _fewest(question: CertificationQuestion, sigma: float) -> int:
    """Votes that an image is to have at least: twice as many as certify it if all agree, and a thousand."""
    return int(min(question.n, max(_FEWEST_VOTES, 2 * question.least_votes(sigma))))


def _seconds_of_a_vote(smoothing: RandomizedSmoothing, x: Tensor, batch_size: int | None) -> float:
    """By what more votes take longer than few: what every call begins with does not count."""
    ask = partial(smoothing.predict, x[:1], batch_size=batch_size, progress=False)

    def took(n: int) -> float:
        began = time.perf_counter()
        ask(n)
        return time.perf_counter() - began

    few, many = 50, 100
    took(few)  # kernels are planned
    least = min(took(few), took(few))
    while True:
        more = took(many) - least
        if more > _TIMED or many >= _MOST_TIMED:
            return max(more, 1e-6) / (many - few)
        many *= 2


def plan_certification(costs: CertificationCosts, question: CertificationQuestion, sigma: float, minutes: float,
                       available: int) -> CertificationPlan:
    """As many images as fit, with all the votes that were asked for if that is a hundred (or all that there are), else
    with half of them, a quarter, and so on, as few as it takes. available: images at most.

    Raises ValueError where not even ten images fit (or all, if there are fewer).
    """
    enough, budget = min(available, _ENOUGH), 60 * minutes

    def fitting(votes: int) -> tuple[CertificationQuestion, int]:
        fewer = replace(question, n=votes)
        return fewer, min(available, int(budget / costs.of_one(fewer)))

    chosen, n = fitting(question.n)
    while n < enough and chosen.n // 2 >= _fewest(question, sigma):
        chosen, n = fitting(chosen.n // 2)
    least = min(available, 10)
    if n < least:
        raise ValueError(f"{minutes:g} minutes are too few: {least} images with {chosen.n:,} votes take about "
                         f"{duration_words(least * costs.of_one(chosen))}")
    whole = n == available and chosen.n == question.n
    return CertificationPlan(chosen, n, n * costs.of_one(chosen), costs, question.n, available,
                             0.0 if whole else available * costs.of_one(question))
