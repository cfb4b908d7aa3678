"""Walks up a loss, right and wrong, beside which a learner's own walk is laid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustness_lib.grading.pgd_and_restarts.points_seen import distinct
from robustness_lib.losses import Loss, cross_entropy

__all__ = ["Walk", "matched", "walk"]

Way = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Walk:
    """What a walk is given: a model, images x (N, C, H, W), labels y (N,), ε, a number of steps, and a start like x."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    steps: int
    start: Tensor

    def answers(self) -> Tensor:
        """What the model answers on the images, (N,)."""
        with torch.no_grad():
            scores: Tensor = self.model.eval()(self.x)
        return scores.argmax(1)

    def bring_back(self, point: Tensor) -> Tensor:
        """The nearest point in ball and box."""
        return torch.minimum(torch.maximum(point, (self.x - self.eps).clamp(min=0)), (self.x + self.eps).clamp(max=1))


def _along_the_sign(gradient: Tensor, gathered: Tensor) -> Tensor:
    return gradient.sign()


def _back(point: Tensor, given: Walk) -> Tensor:
    return given.bring_back(point)


def walk(given: Walk, *, way: Way = _along_the_sign, loss: Loss = cross_entropy, labels: Tensor | str | None = None,
         stay: bool = False, bring_back: Callable[[Tensor, Walk], Tensor] = _back) -> list[Tensor]:
    """The start and the points after each step of 2.5 ε/steps, (N, C, H, W) each.

    way: from the gradient and the sum of all gradients so far to the step, in units of its length. labels: whose loss
    is climbed; "answers" for what the model answers where the walk stands. stay: whether all gradients are the first
    one. bring_back: from the point after a step to an allowed one.
    """
    model, points = given.model.eval(), [given.start]
    first, gathered = None, torch.zeros_like(given.x)
    for _ in range(given.steps):
        pixels = points[-1].detach().clone().requires_grad_()
        scores = model(pixels)
        y = given.y if labels is None else labels if isinstance(labels, Tensor) else scores.argmax(1)
        gradient = torch.autograd.grad(loss(scores, y).sum(), pixels)[0]
        first = gradient if first is None else first
        gathered = gathered + gradient
        move = 2.5 * given.eps / given.steps * way(first if stay else gradient, gathered)
        points.append(bring_back(points[-1] + move, given))
    return points


def matched(paths: list[list[Tensor]], points: list[Tensor]) -> float:
    """The share of images whose path begins as this walk does: at least its first step, and nothing else after it."""
    follow = 0
    for i, path in enumerate(paths):
        way = distinct([point[i].detach() for point in points])  # in a corner a walk may stand still
        near = [bool((point - there).abs().max() < 1e-5) for point, there in zip(path, way, strict=False)]
        follow += len(path) > 1 and all(near)
    return follow / len(paths)
