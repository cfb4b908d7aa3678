"""Boxes that a learner's function returned, and intervals computed another way to lay beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.grading.ibp_by_hand.variants import IntervalsTask
from robustness_lib.grading.linear_models import linear_layer
from robustness_lib.grading.observations import Observation, need, wrong

__all__ = ["CLOSE", "alike", "first_alike", "images_within", "no_box", "small_net", "sound_and_tight", "split_bounds"]

CLOSE = 1e-4


def no_box(found: object, shape: tuple[int, ...]) -> Observation | None:
    """An observation that ends a check: what came back are not two ends of this shape."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        return wrong(f"returns {type(found).__name__}: return two tensors, lower and upper")
    if not all(isinstance(end, Tensor) for end in found):
        kinds = " and ".join(type(end).__name__ for end in found)
        return wrong(f"returns {kinds}: return two tensors of PyTorch, lower and upper")
    if any(end.shape != shape for end in found):
        return wrong(f"returns shapes {tuple(found[0].shape)} and {tuple(found[1].shape)}: both are {shape}")
    return None


def alike(found: Any, expected: Sequence[Tensor]) -> bool:
    """Whether two boxes are the same up to rounding."""
    return all(torch.allclose(a.double(), b.double(), atol=CLOSE, rtol=CLOSE)
               for a, b in zip(found, expected, strict=True))


def first_alike(found: Sequence[Tensor], known: Iterable[tuple[Sequence[Tensor], str]]) -> str | None:
    """The words for the first of the known boxes that is the same; None for none."""
    return next((words for expected, words in known if alike(found, expected)), None)


def sound_and_tight(found: Sequence[Tensor], true: tuple[Tensor, Tensor], mistake: str | None, what: str,
                    share: float = 2.5) -> Iterator[Observation]:
    """Whether a box holds the true range, and whether it is no larger."""
    lower, upper = (end.double() for end in found)
    holds = (lower <= true[0] + CLOSE).all() and (upper >= true[1] - CLOSE).all()
    yield need(holds, f"holds {what}", mistake or f"no bound: it does not hold {what}", share=share)
    yield need(holds and alike(found, true), "and is no larger than it must be",
               "not the true range" if not holds else mistake or "holds it, but is larger than it must be", share=share)


def split_bounds(net: Iterable[nn.Module], x: Tensor, eps: float, *, cut: bool = True) -> tuple[Tensor, Tensor]:
    """Interval bounds in float64 by the positive and the negative weights, each with the end that it needs."""
    lower, upper = x.double() - eps, x.double() + eps
    if cut:
        lower, upper = lower.clamp(0, 1), upper.clamp(0, 1)
    for layer in net:
        if isinstance(layer, nn.Linear):
            up, down = layer.weight.double().clamp(min=0).T, layer.weight.double().clamp(max=0).T
            bias = layer.bias.double()
            lower, upper = lower @ up + upper @ down + bias, upper @ up + lower @ down + bias
        else:
            lower, upper = layer(lower), layer(upper)
    return lower, upper


def small_net(widths: Sequence[int], task: IntervalsTask) -> nn.Sequential:
    """Images (N, 1, 1, widths[0]) through linear layers of these widths, with random weights and ReLU between them."""
    draw, layers = task.generator(2), list[nn.Module]([nn.Flatten()])
    for inputs, outputs in itertools.pairwise(widths):
        layers += [linear_layer(torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw)),
                   nn.ReLU()]
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def images_within(x: Tensor, eps: float, task: IntervalsTask, n: int = 300) -> Tensor:
    """Images within ε of x and the pixel box (n, N, ...), half of them corners."""
    delta = 2 * torch.rand(n, *x.shape, generator=task.generator(3)) - 1
    delta[::2] = delta[::2].sign()
    return (x + eps * delta).clamp(0, 1)
