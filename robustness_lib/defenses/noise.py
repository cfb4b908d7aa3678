"""Noise on every pixel, as a defense by itself. (With a certificate it becomes randomized smoothing.)"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustness_lib.defenses.defense import Defense
from robustness_lib.inputs import check_real

__all__ = ["GaussianNoise"]


class GaussianNoise(Defense):
    """x + N(0, σ²), clamped to [0, 1].

    sigma: the standard deviation, in pixel units of [0, 1]: over 0, at most 1. Raises ValueError for another, TypeError
    for what is no number.
    """

    differentiable = True
    stochastic = True

    def __init__(self, model: nn.Module, sigma: float) -> None:
        super().__init__(model)
        sigma = check_real("sigma", sigma, "a standard deviation in pixel units of [0, 1]")
        if not 0 < sigma <= 1:
            raise ValueError(f"sigma must be over 0 and at most 1, in pixel units of [0, 1] (divide by 255); "
                             f"found {sigma}")
        self.sigma = sigma

    def _transform(self, x: Tensor) -> Tensor:
        return (x + self.sigma * torch.randn_like(x)).clamp(0, 1)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, {super().extra_repr()}"
