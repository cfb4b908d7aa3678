"""A model that remembers at which points it was asked, image by image."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PointsSeen", "distinct"]


class PointsSeen(nn.Module):
    """A model, and what an attack that asked it has looked at.

    Which image a point belongs to is not asked: it is the nearest one, so the images must lie well apart.
    `seen` are the points of each image, in order; `gradients` (N,) counts those that autograd followed;
    `in_train_mode` says whether it was ever asked in train mode; `graphs` how much hung on the points when they came.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.model = model
        self._images = x.detach()
        self._x = self._images.double().flatten(1)
        self._dtype = next((weights.dtype for weights in model.parameters()), x.dtype)
        self.seen: list[list[Tensor]] = [[] for _ in x]
        self.gradients = torch.zeros(len(x), dtype=torch.int64)
        self.in_train_mode = False
        self.graphs: list[int] = []

    def forward(self, points: Tensor) -> Tensor:
        """The model's scores."""
        flat = points.detach().double().flatten(1)
        rows = torch.cdist(flat, self._x, p=math.inf).argmin(1)
        for row, point in zip(rows.tolist(), points.detach().float().clone(), strict=True):
            self.seen[row].append(point)
        if points.requires_grad and torch.is_grad_enabled():
            self.gradients[rows] += 1
        self.in_train_mode |= self.training
        self.graphs.append(_graph_size(points.grad_fn))
        scores: Tensor = self.model(points.to(self._dtype))
        return scores

    def paths(self) -> list[list[Tensor]]:
        """Of each image the points that were looked at, each once, and without the image itself."""
        return [distinct([point for point in points if not torch.equal(point, image)])
                for points, image in zip(self.seen, self._images, strict=True)]


def _graph_size(last: Any) -> int:
    """How many operations autograd has kept behind a tensor."""
    known, waiting = set(), [last] if last is not None else []
    while waiting:
        operation = waiting.pop()
        if operation is not None and operation not in known:
            known.add(operation)
            waiting += [before for before, _ in operation.next_functions]
    return len(known)


def distinct(points: list[Tensor]) -> list[Tensor]:
    """The points in the order in which they first came, each once."""
    kept: list[Tensor] = []
    for point in points:
        if not any(torch.equal(point, other) for other in kept):
            kept.append(point)
    return kept
