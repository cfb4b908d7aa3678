"""Attacks without an ε: how near is the nearest error?"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.attacks._attack import Attack
from robustness_lib.attacks._search import Goal, Run, Search, StepObserver
from robustness_lib.losses import Loss, PairLoss
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.shapes import rows
from robustness_lib.threat import ThreatModel

__all__ = ["MinimumNormAttack", "NearestRun"]


@dataclass(frozen=True)
class MinimumNormAttack(Attack):
    """An attack that looks for the nearest error in a norm.

    The distance found is an upper bound of the true one. Images that are already wrong (targeted: already taken for
    the target) come back untouched, at distance 0; where nothing was found, x comes back, at distance ∞.
    """

    @property
    @abstractmethod
    def _threat(self) -> ThreatModel:
        """The norm; and, as ε, the distance that is near enough to stop looking (0: never stop)."""

    @property
    @abstractmethod
    def _loss(self) -> Loss | PairLoss:
        """The loss to climb."""

    def _search(self, queried: QueriedModel, x: Tensor, y: Tensor, target: Tensor | None, index: Tensor,
                on_step: StepObserver | None, offset: int) -> Search:
        return Search(queried, self._threat, x, Goal(self._loss, y, target), index, "nearest", on_step, offset)

    def _distance(self, x_adv: Tensor, x: Tensor, success: Tensor) -> Tensor:
        return self._threat.distance(x_adv, x).masked_fill_(~success, torch.inf)


class NearestRun(Run):
    """Ranks points by their distance, computed in the images' own type: in float64, as results are, it would cost as
    much as half of what an attack does between two model calls."""

    def __init__(self, search: Search, rows: Tensor, restart: int = 0, goal: Goal | None = None) -> None:
        super().__init__(search, rows, restart, goal)
        # Kept from step to step: fresh memory costs the CPU as much as the arithmetic.
        self.change = torch.empty_like(self.x)

    def drop_finished(self) -> Tensor | None:
        keep = super().drop_finished()
        if keep is not None:
            self.change = self.change[keep]
        return keep

    def rank(self, x_adv: Tensor, loss: Tensor, success: Tensor) -> Tensor:
        return torch.where(success, -self.measure(x_adv), -torch.inf)

    def measure(self, x_adv: Tensor) -> Tensor:
        """(M,) distances from x in the norm that is searched. In L2, `change` then holds x_adv − x."""
        change = rows(torch.sub(x_adv, self.x, out=self.change), self.x)
        return change.abs_().amax(1) if self.search.threat.norm == "linf" else change.norm(dim=1)
