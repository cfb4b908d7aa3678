"""The smoothed classifier as a module: what an attack on a certificate has to attack."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustness_lib.attacks.adaptive import EOT
from robustness_lib.inputs import check_real

__all__ = ["SmoothedClassifier", "check_sigma"]


class _Noisy(nn.Module):
    """The model's answer to x + N(0, σ²), not clipped to the box, with fresh noise (of torch's generator) each time."""

    stochastic = True

    def __init__(self, model: nn.Module, sigma: float) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + self.sigma * torch.randn_like(x))  # type: ignore[no-any-return]


class SmoothedClassifier(EOT):
    """The class that most of `samples` noisy answers name, as logits (N, K): `EOT` over Gaussian noise, by majority.

    The smoothed classifier itself has no end of samples; this one errs where its shares are near each other. It is for
    attacks, in L2; what it answers is no certificate. model: images to logits, a module. sigma: σ in pixel units of
    [0, 1]. Raises ValueError for sigma ≤ 0 and fewer than one sample, TypeError for a model that is no module.
    """

    def __init__(self, model: nn.Module, sigma: float, samples: int = 100) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module; found {type(model).__name__}")
        super().__init__(_Noisy(model, check_sigma(sigma)), samples, decision="majority")

    @property
    def bare(self) -> nn.Module:
        """The model that is smoothed."""
        return self.model.model  # type: ignore[return-value]

    @property
    def sigma(self) -> float:
        return self.model.sigma  # type: ignore[return-value]

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, {super().extra_repr()}"


def check_sigma(sigma: float) -> float:
    """Raises TypeError and ValueError."""
    sigma = check_real("sigma", sigma, "a standard deviation in pixel units of [0, 1]")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be positive and finite, in pixel units of [0, 1]; found {sigma}")
    return sigma
