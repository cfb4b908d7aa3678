"""Intervals through several layers: apart from one layer's, since a step that may use those is to write this."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from robustness_lib.grading.given.intervals_of_a_layer import through_linear, through_rising

__all__ = ["box"]


def box(layers: Iterable[nn.Module], x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """A box around what the layers make of all images within ε of x, in L∞ and the pixel box."""
    lower, upper = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            lower, upper = through_linear(layer.weight.detach(), layer.bias.detach(), lower, upper)
        elif isinstance(layer, nn.Flatten | nn.ReLU):
            lower, upper = through_rising(layer, lower, upper)
        else:
            raise TypeError(f"no rule for {layer}: no bound")
    return lower, upper
