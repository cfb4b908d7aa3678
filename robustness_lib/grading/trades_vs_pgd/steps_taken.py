"""How a search went, step by step, beside how it should have gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib.grading.given import trades_vs_pgd as given
from robustness_lib.grading.linear_models import slope_and_offset
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.trades_vs_pgd.small_nets import line_of_two, one_hidden_layer
from robustness_lib.grading.trades_vs_pgd.variants import TradesVsPgdTask
from robustness_lib.grading.watched_model import WatchedModel

__all__ = ["climbs_step_by_step", "so_many_steps"]

_OfLogits = Callable[[Tensor], Tensor]


def so_many_steps(mine: Callable[..., Tensor], task: TradesVsPgdTask, n: int, side: int,
                  steps: int) -> Iterator[Observation]:
    """Three shares: the search takes so many steps, each of 2.5 ε / steps. On a linear model the margin is to come near
    a goal inside the ball, so that a search passes it again and again, and no two points after each other are alike."""
    eps, (line, x, _) = task.eps, line_of_two(task, n, side)
    weight = slope_and_offset(line)[0].detach()
    toward, size = weight.sign().reshape(x.shape[1:]), 2.5 / steps
    with torch.no_grad():
        margins = _margins(line(x))
    between = steps // 2 + torch.where(torch.arange(n) % 2 == 0, 0.3, 0.7)  # steps from the start, and no whole number
    goals = margins + (between * size - 1) * eps * weight.abs().sum()

    def nearness(logits: Tensor) -> Tensor:
        return -(_margins(logits) - goals).square()

    watched = WatchedModel(line)
    end = mine(watched, nearness, x - eps * toward, x, eps, steps).to(x)
    points = [point.to(x) for point in watched.shown]
    points = [point for place, point in enumerate(points) if place == 0 or not _same(point, points[place - 1])]
    if not (_same(end, points[-1]) or _same(end, _best(points, line, nearness))):
        points.append(end)  # the last point is handed back unseen
    taken = len(points) - 1
    first = ((points[1] - points[0]).abs().max() / eps).item() if taken else 0.0
    even = all(_same((b - a).abs(), torch.full_like(a, size * eps)) for a, b in pairwise(points))
    yield need(taken == steps and even, f"takes {steps} steps of 2.5 ε / {steps}",
               f"takes {taken} steps, the first of {first:.2f} ε. Here steps = {steps}, and each is to move a pixel by "
               f"2.5 ε / {steps} = {size:.2f} ε, along the gradient's sign", share=3)


def _margins(logits: Tensor) -> Tensor:
    """By how much the second class leads (N,)."""
    return logits[:, 1] - logits[:, 0]


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-6)


def _best(points: list[Tensor], net: nn.Module, loss: _OfLogits) -> Tensor:
    """Of each image the point with the largest loss."""
    with torch.no_grad():
        most = torch.stack([loss(net(point)) for point in points]).argmax(0)
    return torch.stack(points)[most, torch.arange(len(most))]


def climbs_step_by_step(search: Callable[[nn.Module, Tensor, Tensor, float, int], Tensor], loss: str,
                        task: TradesVsPgdTask, steps: int) -> Iterator[Observation]:
    """Three shares: on a net of five classes each step goes along the sign of the gradient of this loss at the point
    where it begins, by 2.5 ε / steps, and there are so many.

    search: takes net, images, labels, ε and steps, and gives points, or a loss at the points that the net was shown
    last. loss: a name in `_losses`.
    """
    net, x, _, y = one_hidden_layer(task, 40)
    watched, eps = WatchedModel(net), 0.25
    found = search(watched, x, y, eps, steps)
    end = (found if found.shape == x.shape else watched.shown[-1]).to(x)
    path = [point.to(x) for point in watched.path]
    with torch.no_grad():
        losses = _losses(net(x), y)
    agreeing = {name: _agreement(path, net, other, x, eps, steps) for name, other in losses.items()}
    likeliest = max(agreeing, key=lambda name: agreeing[name])
    right = agreeing[loss] > 0.98 and agreeing[loss] >= agreeing[likeliest]
    named = likeliest if agreeing[likeliest] > 0.98 and not right else "other"
    asked = len(path) == steps or (len(path) == steps + 1 and _on(path, end))
    yield need(asked and right, f"takes {steps} steps along the sign of the gradient of the {loss}",
               f"asks for a gradient {len(path)} times where steps = {steps}" if not asked else _PATHS[named], share=3)


_PATHS = {
    "KL": "climbs the KL from the clean answer: here the label steers, so climb the cross-entropy",
    "KL with its arguments swapped": "climbs the KL with its arguments swapped: KL(clean ‖ attacked) it is, so the "
                                     "clean logits come first, given.kl(clean, logits)",
    "cross-entropy": "climbs the label's cross-entropy: TRADES looks for a large KL from the clean answer",
    "other": "the steps are not those of 2.5 ε / steps along the sign of the loss's gradient at the point where each "
             "begins, brought back into ball and box",
}


def _on(path: list[Tensor], end: Tensor) -> bool:
    """Whether each image ends at a point of the path: whoever keeps the best one has looked at the last one, too."""
    return bool(((torch.stack(path) - end).abs().flatten(2).amax(2) < 1e-6).any(0).all())


def _losses(clean: Tensor, y: Tensor) -> dict[str, _OfLogits]:
    return {"KL": lambda logits: given.kl(clean, logits),
            "KL with its arguments swapped": lambda logits: given.kl(logits, clean),
            "cross-entropy": lambda logits: F.cross_entropy(logits, y, reduction="none")}


def _agreement(path: list[Tensor], net: nn.Module, loss: _OfLogits, x: Tensor, eps: float, steps: int) -> float:
    """The share of pixels, over all steps, that went where a step along this loss's gradient leads."""
    shares = []
    for begin, end in pairwise(path):
        at = begin.clone().requires_grad_()
        gradient, = torch.autograd.grad(loss(net(at)).sum(), at)
        expected = (begin + 2.5 * eps / steps * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
        shares.append(((end - expected).abs() < 1e-5).double().mean().item())
    return sum(shares) / len(shares) if shares else 0.0
