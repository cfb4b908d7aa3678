"""Linear models, of which the right answer is known without asking autograd."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["linear_classifier", "linear_gradient", "linear_layer", "linear_scores", "points_at", "slope_and_offset"]


def linear_layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer with this weight (out, in) and bias (out,), in their dtype. No random numbers are drawn for it."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def linear_classifier(w: Tensor, b: float = 0.0) -> nn.Module:
    """Images (N, ...) to logits (N, 2), whose difference is the margin w · x + b. w: of an image's shape."""
    half = w.flatten() / 2
    return nn.Sequential(nn.Flatten(), linear_layer(torch.stack([-half, half]), torch.tensor([-b / 2, b / 2])))


def slope_and_offset(model: nn.Sequential) -> tuple[Tensor, Tensor]:
    """w and b of the margin w · x + b by which the second class leads, of a model whose last layer is its only linear
    one. They carry the graph of its weights."""
    layer = model[-1]
    assert isinstance(layer, nn.Linear)
    return layer.weight[1] - layer.weight[0], layer.bias[1] - layer.bias[0]


def points_at(distances: Tensor, w: Tensor, b: float = 0.0) -> Tensor:
    """An image at each of these signed L2 distances (N,) from the plane w · x + b = 0, on the line along w through the
    middle of the pixel box. w: of an image's shape. Class 1 lies at positive distances. Images lie in the box where w
    adds up to 0 and is spread over many pixels."""
    grey = torch.full_like(w, 0.5)
    margin = (w * grey).sum() + b
    unit = w / w.norm()
    steps = distances - margin / w.norm()
    placed: Tensor = grey + steps.reshape(-1, *([1] * w.dim())) * unit
    return placed


def linear_scores(shape: tuple[int, ...], classes: int, generator: torch.Generator) -> nn.Sequential:
    """Images of this shape (C, H, W) to scores by one linear layer with random weights. Before it stands a dropout,
    which is at work in train mode only: the gradient of a model that was left in train mode is another one."""
    inputs = math.prod(shape)
    weight = torch.randn(classes, inputs, generator=generator) / math.sqrt(inputs)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.3), linear_layer(weight, torch.randn(classes, generator=generator)))


def linear_gradient(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each image's cross-entropy by its pixels in eval mode, in float64 by its formula: Wᵀ(p − e_y).
    model: one of `linear_scores`."""
    layer = model[-1]
    assert isinstance(layer, nn.Linear)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    p = (x.double().flatten(1) @ weight.T + bias).softmax(1)
    return ((p - F.one_hot(y, len(bias))) @ weight).reshape(x.shape)
