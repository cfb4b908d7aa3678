"""How the learning rate moves over a training."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

__all__ = ["OneCycle", "Piecewise", "Schedule"]


@dataclass(frozen=True)
class OneCycle:
    """Up to `peak` over the first `warm_up` share of the training, and down to nearly nothing, along cosines; momentum
    goes the other way (Smith and Topin 2018, arXiv 1708.07120)."""

    peak: float = 2e-3
    warm_up: float = 0.3

    def __post_init__(self) -> None:
        _check_rate("peak", self.peak)
        if not 0 < self.warm_up < 1:
            raise ValueError(f"warm_up is a share of the training, between 0 and 1; found {self.warm_up}")

    @property
    def start(self) -> float:
        return self.peak

    def build(self, optimizer: Optimizer, epochs: int, steps: int) -> LRScheduler:
        """steps: per epoch."""
        total, share = epochs * steps, self.warm_up
        if total * share == 1:  # a warm-up of one step is at the peak at once; PyTorch would divide by zero
            share *= 1 - 1e-9
        return OneCycleLR(optimizer, self.peak, total_steps=total, pct_start=share)


@dataclass(frozen=True)
class Piecewise:
    """`start`, times `factor` from each of `milestones` on (in epochs done; halves are fine). With none: constant."""

    start: float = 1e-3
    milestones: Sequence[float] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_rate("start", self.start)
        _check_rate("factor", self.factor)
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if list(self.milestones) != sorted(self.milestones) or any(m <= 0 for m in self.milestones):
            raise ValueError(f"milestones must be positive and grow; found {self.milestones}")

    def build(self, optimizer: Optimizer, epochs: int, steps: int) -> LRScheduler:
        """steps: per epoch."""
        at = [math.ceil(milestone * steps) for milestone in self.milestones]
        return LambdaLR(optimizer, lambda step: self.factor ** bisect.bisect_right(at, step))


Schedule = OneCycle | Piecewise


def _check_rate(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite; found {value}")
