"""Projected gradient descent on the adversary's side: many small steps, projected back, from several starts
(Madry et al. 2018, arXiv 1706.06083; Kurakin, Goodfellow and Bengio 2017, arXiv 1607.02533, without the start)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustness_lib.attacks._attack import Attack
from robustness_lib.attacks._search import Search, climb

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD(Attack):
    """`steps` steepest steps of the threat model's norm, each projected onto ball ∩ box.

    step_size: in pixel units; None means 2.5·ε/steps, enough to cross the ball and come back part of the way, and
    right for every ε (a fixed one is not). restarts: starts per example; only survivors are tried again, and the
    best is kept per example. random_start=False begins at x itself.
    """

    steps: int = 40
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; found {self.steps}")
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1; found {self.restarts}")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"step_size must be positive, in pixel units of [0, 1]; found {self.step_size}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts > 1 without random_start would repeat the same run; set random_start=True")

    def _attack(self, search: Search, start: Tensor | None) -> None:
        eps = search.threat.eps
        step_size = 2.5 * eps / self.steps if self.step_size is None else self.step_size
        for restart in range(self.restarts):
            rows = search.start_restart(restart)
            if len(rows) == 0:
                return
            climb(search, rows, self._start(search, rows, start, restart), self.steps, step_size)

    def _start(self, search: Search, rows: Tensor, start: Tensor | None, restart: int) -> Tensor:
        x = search.x[rows]
        if start is not None and restart == 0:
            return search.threat.project(start[rows], x)
        if not self.random_start:
            return x
        index = search.index[rows.cpu()]
        return search.threat.random_point(x, seed=self.seed, index=index, step=restart)
