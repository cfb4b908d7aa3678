"""What fits into so many minutes: the suite, the number of images, and the interval that comes of it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustness_lib.attacks import PGD, SquareAttack
from robustness_lib.evaluation._steps import DIAGNOSED
from robustness_lib.inputs import NotANumber
from robustness_lib.querying.batch_size import default_batch_size
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.querying.first_look import works
from robustness_lib.querying.frozen import Classifier
from robustness_lib.querying.queried_model import NoGradient, QueriedModel
from robustness_lib.querying.refusals import refused_arrangement
from robustness_lib.statistics import clopper_pearson
from robustness_lib.threat import ThreatModel

__all__ = ["Costs", "Plan", "duration_words", "measure", "plan"]

_TRIED = 64  # images that the costs are measured on
_HALF_WIDTH = 0.08  # of the 95 % interval, at most, for a verdict: wider, and it hardly tells two models apart
_SLACK = 1.3  # checks, projections, the state; measured runs took .7 to 1.2 times what is estimated without it
_QUERIES = 5  # of Square, to time one
_TARGETS = 9  # classes that AutoAttack's targeted parts go toward


@dataclass(frozen=True)
class Costs:
    """Of one image, in seconds: a forward pass, and a gradient. clean, standing: shares of the images tried that the
    model has right, and that PGD-20 leaves standing. classes: of the model."""

    forward: float
    gradient: float
    clean: float
    standing: float
    classes: int

    def seconds(self, suite: str, n: int) -> float:
        """What a suite takes on n images. What an attack breaks, it breaks early; what stands costs all its steps."""
        f, g, fell = self.forward, self.gradient, self.clean - self.standing
        pgd = 20 * self.standing + 5 * fell
        if suite == "quick":
            return _SLACK * n * (f + (self.clean + pgd) * g)
        targets = min(_TARGETS, self.classes - 1)
        if suite == "random":
            return _SLACK * n * (f + self.standing * 200 * 20 * g)
        auto_attack = self.standing * ((100 + 200 * targets) * g + (5000 + 100 * targets) * f)
        curve = 50 * self.clean * g  # five ε, of which about half break most
        return _SLACK * (n * (f + (self.clean + 5 * pgd + curve) * g + auto_attack)
                         + min(n, DIAGNOSED) * (183 * g + 267 * f) * max(self.standing, 0.3))


@dataclass(frozen=True)
class Plan:
    """suite and n that fit; seconds: estimated; costs: what the estimate rests on. verdict: what the standard suite
    would take in its place, as (images, seconds); empty where there is nothing to say."""

    suite: str
    n: int
    seconds: float
    costs: Costs
    verdict: tuple[tuple[int, float], ...] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval to expect if as many images stand as did among those tried."""
        return clopper_pearson(round(self.costs.standing * self.n), self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return (f"The {self.suite} suite on {self.n:,} images, about {duration_words(self.seconds)}. If "
                f"{100 * self.costs.standing:.0f} % resist, as in a first look, the 95 % interval will be about "
                f"{100 * low:.0f}–{100 * high:.0f} %." + self._instead)

    @property
    def _instead(self) -> str:
        if not self.verdict:
            return ""
        if self.suite == "quick":
            return f" That is a quick look and no verdict. {_verdict_words(self.verdict)}"
        return f" On all {self.verdict[0][0]:,} it would take about {duration_words(self.verdict[0][1])}."


def measure(model: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, batch_size: int | None = None) -> Costs:
    """Costs from a first look: PGD-20 and passes on at most 64 images. x (N, ...), N ≥ 1, y (N,) int64. Images that
    the model fails on, or answers NaN, are left out, as a report leaves them; where none is left, what is wrong with
    them is raised."""
    x, y = x[:_TRIED], y[:_TRIED]
    device = QueriedModel(model).device(x)
    size = batch_size or default_batch_size(x, device)
    with refused_arrangement(model, x):
        rows = _answered(model, x, size)
    x, y = x[rows.to(x.device)], y[rows.to(y.device)]
    logits = predict_logits(model, x, size=size, labels=y)
    forward = _least_seconds(lambda: predict_logits(model, x, size=size), device) / len(x)
    right = logits.argmax(1) == y.cpu()
    # Attacks may ask in an order of memory in which convolutions are faster, and Square asks most: timed as it does.
    squares, steps = SquareAttack(threat, queries=_QUERIES, stop="never"), PGD(threat, steps=4, stop="never")
    gradient, stands = 2 * forward, right  # where no attack but Square can try, or a point near the images is NaN
    with suppress(NoGradient, NotANumber):
        forward = min(forward, _least_seconds(lambda: squares.run(model, x, y, batch_size=size), device)
                      / _QUERIES / len(x))
        gradient = 2 * forward
        gradient = _least_seconds(lambda: steps.run(model, x, y, batch_size=size), device) / len(x) / 4
        stands = ~PGD(threat, steps=20).run(model, x, y, batch_size=size).success
    return Costs(forward, gradient, float(right.float().mean()), float(stands.float().mean()), logits.shape[1])


def _answered(model: Classifier, x: Tensor, size: int) -> Tensor:
    """Places (m,), m ≥ 1, of the images that the model answers with numbers; raises what it raises where there are
    none."""
    no_labels = torch.empty(0, dtype=torch.int64)  # the answers are checked all the same
    try:
        return (~predict_logits(model, x, size=size, labels=no_labels).isnan().any(1)).nonzero()[:, 0]
    except Exception:  # whatever a model may raise, on some of these images only?
        alone = [row for row in range(len(x)) if works(model, x[row:row + 1], "eval")]
        if not alone:
            raise
        return torch.tensor(alone)


def _least_seconds(work: Any, device: torch.device, repeats: int = 3) -> float:
    least = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        least = min(least, time.perf_counter() - began)
    return least


def plan(costs: Costs, minutes: float, available: int, suite: str | None = None, processes: int = 1) -> Plan:
    """The most that fits: the standard suite where it fits on so many images that the 95 % interval is at most ±8
    points (or on all, if there are fewer), else the quick one, with what a verdict would take. available: images at
    most. suite: only this one.

    Raises ValueError where not even ten images fit (or all, if there are fewer), and for the suite "prove".
    """
    if not minutes > 0:
        raise ValueError(f"minutes must be more than 0; found {minutes}")
    if suite == "prove":
        raise ValueError("how long proofs take is not known before they are tried: leave out --minutes and say how "
                         "many images, by -n")
    budget, enough = 60 * minutes * processes, min(available, _enough(costs.standing))

    def verdict(*numbers: int) -> tuple[tuple[int, float], ...]:
        return tuple((n, costs.seconds("standard", n) / processes) for n in numbers)

    for name in (suite,) if suite else ("standard", "quick"):
        n = _most(costs, name, budget, available)
        if n >= (enough if name == "standard" and not suite else min(available, 10)):
            instead = {"quick": dict.fromkeys((available, enough)),
                       "standard": (available,) if n < available else ()}.get(name, ())
            return Plan(name, n, costs.seconds(name, n) / processes, costs, verdict(*instead))
    name = suite or "quick"
    least = min(available, 10)
    raise ValueError(f"{minutes:g} minutes are too few: the {name} suite on {least} images takes about "
                     f"{duration_words(costs.seconds(name, least) / processes)}"
                     + (f". {_verdict_words(verdict(*dict.fromkeys((available, enough))))}" if name == "quick" else ""))


def _enough(standing: float) -> int:
    """The number of images from which on the interval is narrow enough, if this share of them stands."""
    def half(n: int) -> float:
        low, high = clopper_pearson(round(standing * n), n)
        return (high - low) / 2

    return 1 + max(n for n in range(1, 200) if half(n) > _HALF_WIDTH)  # at .5, the widest, about 160


def _verdict_words(verdict: tuple[tuple[int, float], ...]) -> str:
    """Images and seconds of the standard suite, all that there are first."""
    listed = [f"on {n:,} images about {duration_words(seconds)}" for n, seconds in verdict]
    if len(listed) > 1:
        listed[-1] += f", for an interval of ±{100 * _HALF_WIDTH:.0f} points"
    return f"A verdict (--suite standard) takes {'; '.join(listed)}."


def _most(costs: Costs, suite: str, budget: float, available: int) -> int:
    low, high = 0, available
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if costs.seconds(suite, middle) <= budget else (low, middle - 1)
    return low


def duration_words(seconds: float) -> str:
    """29 seconds, 21 minutes, 2.1 hours: as exact as an estimate can be."""
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes" if seconds < 7200 else \
        f"{seconds / 3600:.1f} hours"
