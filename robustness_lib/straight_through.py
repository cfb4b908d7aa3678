"""Arithmetic that must come out exact, on every device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["clamped", "divide", "straight_through"]


def clamped(x: Tensor, low: float, high: float) -> Tensor:
    """x.clamp(low, high), with slope one on the closed interval: torch's own has slope zero at both ends, and white
    would have no gradient."""
    return straight_through(x.clamp(low, high), torch.where((x < low) | (x > high), x.detach(), x))


def divide(x: Tensor, number: float) -> Tensor:
    """x / number, correctly rounded. By a Python number, a GPU multiplies with 1 / number: k / k is not always 1."""
    return x / torch.full((), number, dtype=x.dtype, device=x.device)


def straight_through(value: Tensor, slope: Tensor) -> Tensor:
    """`value` exactly, with the gradient of `slope` (Bengio, Léonard and Courville 2013, arXiv 1308.3432)."""
    return value.detach() + (slope - slope.detach())
