"""What students do not get: the same checks, on sizes, seeds and ε that they have not seen."""

from __future__ import annotations

from collections.abc import Callable

import checks
from torch import Tensor

from robustness_lib.grading import Points


def lengths(mine: Callable[[Tensor], Tensor], variant: int) -> Points:
    return checks.lengths.in_grading(mine, variant=variant + 5, size=9, points=1)


def into_ball(mine: Callable[[Tensor, Tensor, float], Tensor], variant: int) -> Points:
    return checks.into_ball.in_grading(mine, variant=variant + 5, eps=0.8, points=1)
