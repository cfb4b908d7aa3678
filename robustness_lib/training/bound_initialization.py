"""Initial weights for training for bounds: boxes of interval arithmetic keep their width from layer to layer."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["initialize_for_bounds"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def initialize_for_bounds(model: nn.Module) -> None:
    """Draw the weights of linear layers and convolutions again, in place: normal with standard deviation √(2π) / n, for
    the n values that each result is summed from; biases become 0 (Shi et al. 2021, arXiv 2103.17268).

    A box that passes such a layer and a ReLU is as wide as before, on average. PyTorch's own initial weights let it
    grow by a factor that rises with √n, so that training for bounds begins with boxes that say nothing. Other layers
    stay as they are. Draws from the global generator, as torch.nn.init does. Raises ValueError for a model that has no
    such layer, or one whose weights follow from others.
    """
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, _LAYERS)]
    if not found:
        raise ValueError("the model has no linear layer and no convolution whose weights could be drawn")
    for name, layer in found:
        if "weight" not in dict(layer.named_parameters(recurse=False)):
            raise ValueError(f"the weights of layer {name!r} follow from others, by weight norm or a parametrization: "
                             f"draw them before that is put on")
    with torch.no_grad():
        for _, layer in found:
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 * math.pi) / layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
