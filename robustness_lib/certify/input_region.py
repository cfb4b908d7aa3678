"""Where the images may be: the threat model's ball around each, cut by the pixel box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.certify.operation import Box
from robustness_lib.certify.relaxation import Groups
from robustness_lib.norm_balls import largest_scale
from robustness_lib.shapes import entries
from robustness_lib.threat import ThreatModel

__all__ = ["InputRegion", "least_in_box"]


def least_in_box(box: Box, rows: Tensor, groups: Groups) -> Tensor:
    """The least value of each linear function (P, ...) in the box of its image: (P,)."""
    split = entries(groups.split(rows), 2)  # (G, each, d)
    centre, radius = (entries(part[groups.images]) for part in (box.centre, box.radius))
    return (_products(split, centre) - _products(split.abs(), radius)).flatten()


def _products(rows: Tensor, points: Tensor) -> Tensor:
    """Of each of the rows (G, each, d) with its point (G, d): (G, each). As a product of matrices with the point on the
    left, or entry by entry, whichever a CPU is quicker at."""
    if rows.shape[1] == 1:
        products: Tensor = torch.linalg.vecdot(rows, points[:, None])
        return products
    return (points[:, None] @ rows.mT)[:, 0]


@dataclass(frozen=True)
class InputRegion:
    """x: (N, ...) the centres. cut: whether by the pixel box [0, 1] (as the threat model means it)."""

    x: Tensor
    threat: ThreatModel
    cut: bool = True

    @property
    def box(self) -> Box:
        """The smallest box around it, (N, ...). No value of an L2 ball is further from the centre than ε either."""
        lower, upper = self.x - self.threat.eps, self.x + self.threat.eps
        return Box(lower.clamp(min=0), upper.clamp(max=1)) if self.cut else Box(lower, upper)

    def at(self, images: Tensor | slice) -> InputRegion:
        """Around some of the images: their places (m,), or where they lie."""
        return InputRegion(self.x[images], self.threat, self.cut)

    def least(self, rows: Tensor, groups: Groups) -> Tensor:
        """The least value of each linear function (P, ...) around its image: (P,). Never above the true one, and exact
        but for rounding."""
        if self.threat.norm == "linf":
            return least_in_box(self.box, rows, groups)
        split = entries(groups.split(rows), 2)  # (G, each, d)
        x = entries(self.x[groups.images])
        ball: Tensor = (_products(split, x) - self.threat.eps * torch.linalg.vector_norm(split, dim=2)).flatten()
        if not self.cut or self.threat.eps == 0:
            return ball
        return torch.maximum(ball, self._least_cut(split.flatten(0, 1), x.repeat_interleave(groups.each, 0)))

    def _least_cut(self, rows: Tensor, x: Tensor) -> Tensor:
        """In ball ∩ box, by its dual: for every λ > 0 the least of rows · v + λ/2 (‖v − x‖² − ε²) over the box alone is
        a lower bound, and at the best λ it is the least over both."""
        with torch.no_grad():
            size, room = rows.abs(), torch.where(rows > 0, x, 1 - x)
            scale = largest_scale(size, room, self.threat.eps, most=1e30)  # 1/λ; the box alone stops the last rows
            move = -torch.sign(rows) * torch.minimum(size * scale[:, None], room)
            penalty = (move.square().sum(1) - self.threat.eps**2) / (2 * scale)
        return (rows * (x + move)).sum(1) + penalty
