"""What fits into so many minutes: the suite, the number of images, and the interval that comes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustness_lib.attacks import PGD
from robustness_lib.evaluation._steps import DIAGNOSED
from robustness_lib.querying.batch_size import default_batch_size
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.querying.frozen import Classifier
from robustness_lib.querying.queried_model import NoGradient, QueriedModel
from robustness_lib.statistics import clopper_pearson
from robustness_lib.threat import ThreatModel

__all__ = ["Costs", "Plan", "measure", "plan"]

_TRIED = 64  # images that the costs are measured on
_ENOUGH = 100  # images that a standard verdict needs: fewer, and quick on more of them says more
_SLACK = 1.3  # checks, projections, the state; measured runs took .7 to 1.2 times what is estimated without it
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
    """suite and n that fit; seconds: estimated; costs: what the estimate rests on."""

    suite: str
    n: int
    seconds: float
    costs: Costs

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval to expect if as many images stand as did among those tried."""
        return clopper_pearson(round(self.costs.standing * self.n), self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return (f"The {self.suite} suite on {self.n:,} images, about {_duration(self.seconds)}. If "
                f"{100 * self.costs.standing:.0f} % resist, as in a first look, the 95 % interval will be about "
                f"{100 * low:.0f}–{100 * high:.0f} %.")


def measure(model: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, batch_size: int | None = None) -> Costs:
    """Costs from a first look: PGD-20 and passes on at most 64 images. x (N, ...), N ≥ 1, y (N,) int64."""
    x, y = x[:_TRIED], y[:_TRIED]
    device = QueriedModel(model).device(x)
    size = batch_size or default_batch_size(x, device)
    logits = predict_logits(model, x, size=size, labels=y)
    forward = _least_seconds(lambda: predict_logits(model, x, size=size), device) / len(x)
    steps = PGD(threat, steps=4, stop="never")
    try:
        gradient = _least_seconds(lambda: steps.run(model, x, y, batch_size=size), device) / len(x) / 4
        stands = ~PGD(threat, steps=20).run(model, x, y, batch_size=size).success
    except NoGradient:  # only Square can try
        gradient, stands = 2 * forward, logits.argmax(1) == y.cpu()
    right = float((logits.argmax(1) == y.cpu()).float().mean())
    return Costs(forward, gradient, right, float(stands.float().mean()), logits.shape[1])


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
    """The most that fits: the standard suite where it fits on 100 images (or all, if there are fewer), else the quick
    one. available: images at most. suite: only this one.

    Raises ValueError where not even ten images fit (or all, if there are fewer).
    """
    if not minutes > 0:
        raise ValueError(f"minutes must be more than 0; found {minutes}")
    budget = 60 * minutes * processes
    for name in (suite,) if suite else ("standard", "quick"):
        n = _most(costs, name, budget, available)
        if n >= min(available, 10 if suite or name == "quick" else _ENOUGH):
            return Plan(name, n, costs.seconds(name, n) / processes, costs)
    name = suite or "quick"
    least = min(available, 10)
    raise ValueError(f"{minutes:g} minutes are too few: the {name} suite on {least} images takes about "
                     f"{_duration(costs.seconds(name, least) / processes)}")


def _most(costs: Costs, suite: str, budget: float, available: int) -> int:
    low, high = 0, available
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if costs.seconds(suite, middle) <= budget else (low, middle - 1)
    return low


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes" if seconds < 7200 else \
        f"{seconds / 3600:.1f} hours"
