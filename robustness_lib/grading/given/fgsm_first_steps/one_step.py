"""The step along the gradient's sign."""

from __future__ import annotations

from torch import Tensor, nn

from robustness_lib.grading.given.fgsm_first_steps.pixels import input_gradient

__all__ = ["fgsm"]


def fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Images x (N, ...) after one step of ε along the sign of their gradient, in the pixel box."""
    return (x + eps * input_gradient(model, x, y).sign()).clamp(0, 1)
