"""Small nets on which the losses of `trades_vs_pgd` are known, and their gradients in the weights."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.grading.linear_models import linear_layer
from robustness_lib.grading.trades_vs_pgd.variants import TradesVsPgdTask
from robustness_lib.grading.watched_model import WatchedModel

__all__ = ["line_of_two", "near", "one_hidden_layer", "slopes_at", "weights_gradient", "with_modes"]


def line_of_two(task: TradesVsPgdTask, n: int, side: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A linear model of two classes in float64, images far from black and white, and labels."""
    draw = task.generator(11)
    weight = (3 * torch.randn(2, side * side, generator=draw)).double()
    line = nn.Sequential(nn.Flatten(), linear_layer(weight, -weight.sum(1) / 2))
    x = 0.3 + 0.4 * torch.rand(n, 1, side, side, generator=draw, dtype=torch.float64)
    return line, x, torch.randint(2, (n,), generator=draw)


def one_hidden_layer(task: TradesVsPgdTask, n: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A net with one hidden layer in float64, images, points beside them and labels."""
    draw = task.generator(12)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    x, shift = (torch.rand(n, 3, 2, 2, generator=draw, dtype=torch.float64) for _ in range(2))
    return net, x, (x + shift - 0.5).clamp(0, 1), torch.randint(5, (n,), generator=draw)


def with_modes(task: TradesVsPgdTask) -> WatchedModel:
    """A net whose answers depend on its mode."""
    with torch.random.fork_rng():
        torch.manual_seed(task.variant)
        return WatchedModel(nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU(),
                                          nn.Dropout(0.2), nn.Linear(16, 3)))


def slopes_at(value: Tensor, at: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradient in each of these; zero where none goes, or none is left after a .backward() of the learner's."""
    found: tuple[Any, ...] = (None,) * len(at)
    if value.requires_grad:
        with contextlib.suppress(RuntimeError):
            found = torch.autograd.grad(value, at, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(one) if slope is None else slope for one, slope in zip(at, found, strict=True)]


def weights_gradient(net: nn.Module, loss: Tensor) -> Tensor:
    """The loss's gradient in all parameters of the net, one after the other, (P,)."""
    return torch.cat([slope.flatten() for slope in slopes_at(loss, tuple(net.parameters()))])


def near(found: Tensor, wanted: Tensor, slack: float = 1e-6) -> bool:
    """Whether two numbers, or two gradients, are the same up to rounding."""
    return bool((found.detach() - wanted.detach()).norm() <= slack * (1 + wanted.detach().norm()))
