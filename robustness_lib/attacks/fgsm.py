"""The fast gradient sign method: one step (Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.attacks._attack import Attack
from robustness_lib.attacks._search import Search

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM(Attack):
    """One step of length ε along the gradient's sign (L∞) or direction (L2), clipped to the box.

    Best possible for the loss's linearization at x, where the gradient is not zero and the box does not bind; hence
    exact on a linear model. Never an evaluation by itself: a model can be flat along one step and break in two.
    """

    def _attack(self, search: Search, start: Tensor | None) -> None:
        rows = search.start_restart(0)
        x, goal = search.x[rows], search.goal[rows]
        begin = x if start is None else search.threat.project(start[rows], x)
        _, _, gradient = search.victim.gradient(begin, goal.value)
        search.gradients[rows] += 1
        search.zero_gradient[rows] = (gradient == 0).flatten(1).all(1)
        step = search.threat.steepest_step(torch.nan_to_num(gradient), search.threat.eps)
        x_adv = search.threat.project(begin + step, x)
        logits = search.victim.logits(x_adv)
        search.queries[rows] += 1  # the pass that gave the gradient
        search.offer(rows, 1, x_adv, goal.value(logits), logits)
