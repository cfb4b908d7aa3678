"""Intervals through one layer (Gowal et al. 2018, arXiv 1810.12715)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["through_linear", "through_rising"]


def through_linear(weight: Tensor, bias: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest box around what a linear layer makes of each box: the centre by W, the radius by |W|."""
    centre, radius = (lower + upper) / 2, (upper - lower) / 2
    centre, radius = centre @ weight.T + bias, radius @ weight.abs().T
    return centre - radius, centre + radius


def through_rising(function: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest box around what a function that never falls makes of each box, entry by entry."""
    return function(lower), function(upper)
