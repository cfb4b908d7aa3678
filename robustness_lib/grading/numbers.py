"""What several checks ask of numbers that a learner's function returns."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

__all__ = ["is_number", "matching"]


def is_number(found: Any, finite: bool = True) -> bool:
    """Whether this is one real number, of Python, numpy or torch, and no NaN. finite: nor infinite."""
    try:
        number = float(found)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not isinstance(found, str) and not math.isnan(number) and not (finite and math.isinf(number))


def matching(found: Tensor, right: Tensor, slack: float = 1e-4) -> bool:
    """Whether two numbers are the same up to rounding."""
    return abs(found.item() - right.item()) <= slack * max(1.0, abs(right.item()))
