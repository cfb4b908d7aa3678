"""The fast gradient sign method: one step (Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.attacks._search import Run, Search

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM(BoundedAttack):
    """One step of length ε along the gradient's sign (L∞) or direction (L2), clipped to the box.

    Best possible for the loss's linearization at x, where the gradient is not zero and the box does not bind; hence
    exact on a linear model. Never an evaluation by itself: a model can be flat along one step and break in two.
    """

    def _attack(self, search: Search, start: Tensor | None) -> None:
        run = Run(search, search.standing())
        begin = run.x if start is None else self._given_start(run, start)
        _, _, gradient = run.gradient(begin)
        run.note_blind(gradient)
        run.queries += ~run.finished  # the pass that gave the gradient
        x_adv = run.project(begin + search.threat.steepest_step(gradient, search.threat.reach(run.x)))
        logits = search.queried.logits(x_adv)
        run.offer(1, x_adv, run.goal.value(logits), logits)
        run.commit()
