"""Fewer levels per channel (Xu, Evans and Qi 2018, arXiv 1704.01155, section III-A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustness_lib.defenses.defense import Defense
from robustness_lib.inputs import check_count
from robustness_lib.straight_through import divide

__all__ = ["BitDepth"]


class BitDepth(Defense):
    """Each pixel to the nearest of exactly 2^bits levels, k / (2^bits − 1) for k = 0, 1, ...: black stays 0, white 1.

    bits: 1 to 8. The result is a staircase: its gradient is zero wherever there is one. Raises ValueError for other
    bits, TypeError for what is no whole number.
    """

    differentiable = False
    stochastic = False

    def __init__(self, model: nn.Module, bits: int) -> None:
        super().__init__(model)
        check_count("bits", bits, least=None)
        if not 1 <= bits <= 8:
            raise ValueError(f"bits must lie in 1 ... 8, per channel; found {bits}")
        self.bits = bits

    def _transform(self, x: Tensor) -> Tensor:
        top = 2**self.bits - 1  # not 2^bits: rounding to k / 2^bits makes one level more
        return divide(torch.round(x.clamp(0, 1) * top), top)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, {super().extra_repr()}"
