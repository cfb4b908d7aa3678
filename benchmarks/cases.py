"""The nets and images of the comparisons, and how much work each asks for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib import ThreatModel, attacks, data, models

__all__ = ["QUICK", "Case", "Figures", "Size", "half_robust", "nearly_all_broken", "right", "unbreakable"]

Figures = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much work each section asks for."""

    repeats: int = 5
    pgd_images: int = 500
    pgd_steps: int = 40
    apgd_images: int = 200
    apgd_steps: int = 100
    cw_images: int = 20
    cw_search_steps: int = 6
    cw_steps: int = 100
    fab_images: int = 25
    fab_steps: int = 100
    square_images: int = 100
    square_queries: int = 1000
    overhead_images: int = 100
    autoattack_images: int = 100
    autoattack_steps: int = 100
    autoattack_queries: int = 5000
    autoattack_repeats: int = 3
    reference_images: int = 1000


QUICK = Size(repeats=1, pgd_images=60, apgd_images=40, apgd_steps=30, cw_images=5, cw_search_steps=3, cw_steps=20,
             fab_images=8, fab_steps=10, square_images=30, square_queries=100, overhead_images=100,
             autoattack_images=10, autoattack_repeats=1, reference_images=20)


@dataclass(frozen=True)
class Case:
    """Images that the model gets right. `eps` is None where the attack looks for the smallest distance."""

    name: str
    net: str
    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float | None = None

    def first(self, n: int) -> Case:
        return Case(self.name, self.net, self.model, self.x[:n], self.y[:n], self.eps)

    def figures(self) -> Figures:
        return {"model": self.net, "n": len(self.x)} | ({} if self.eps is None else {"eps": self.eps})


@cache
def right(net: str, n: int, eps: float | None = None) -> Case:
    """The first n test images that the net classifies rightly."""
    model = models.load_pretrained(net)
    x, y, _ = data.load("signs")
    with torch.no_grad():
        rows = (model(x).argmax(1) == y).nonzero()[:n, 0]
    return Case(net, net, model, x[rows], y[rows], eps)


@cache
def unbreakable(n: int) -> Case:
    """Attacked at 2/255, images that withstand PGD at 4/255."""
    case = right("signs-pgd", 3 * n)
    strong = attacks.PGD(ThreatModel("linf", 4 / 255), steps=40, restarts=2, seed=9)
    rows = (~strong.run(case.model, case.x, case.y).success).nonzero()[:n, 0]
    if len(rows) < n:
        raise RuntimeError(f"only {len(rows)} images withstand PGD at 4/255, and {n} were asked for")
    return Case("unbreakable", case.net, case.model, case.x[rows], case.y[rows], 2 / 255)


@cache
def half_robust(n: int) -> Case:
    """The standard net at the ε, by bisection, at which PGD breaks about half of the images."""
    case = right("signs-standard", n)
    low, high = 0.0, 8 / 255
    for _ in range(8):
        eps = (low + high) / 2
        success = attacks.PGD(ThreatModel("linf", eps), steps=10).run(case.model, case.x, case.y).success
        low, high = (eps, high) if success.double().mean() < 0.5 else (low, eps)
    return Case("half robust", case.net, case.model, case.x, case.y, (low + high) / 2)


@cache
def nearly_all_broken(n: int) -> Case:
    case = right("signs-standard", n)
    return Case("nearly all broken", case.net, case.model, case.x, case.y, 8 / 255)
