"""Projected gradient descent on the adversary's side: many small steps, projected back, from several starts
(Madry et al. 2018, arXiv 1706.06083; Kurakin, Goodfellow and Bengio 2017, arXiv 1607.02533, without the start)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from robustness_lib.attacks._attack import Attack
from robustness_lib.attacks._inputs import check_count
from robustness_lib.attacks._search import Run, Search, climb

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD(Attack):
    """`steps` steepest steps of the threat model's norm, each projected onto ball ∩ box.

    step_size: in pixel units; None means 2.5·ε/steps (with ε no larger than the pixel box), enough to cross the ball
    and come back part of the way, and right for every ε (a fixed one is not). restarts: starts per example; only
    survivors are tried again, and the best is kept per example. random_start=False begins at x itself.
    seed: any whole number; the starts follow from it, the example's index and the restart.
    """

    steps: int = 40
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        check_count("seed", self.seed, least=None)
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size must be positive and finite, in pixel units of [0, 1]; found {self.step_size}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts > 1 without random_start would repeat the same run; set random_start=True")

    def _attack(self, search: Search, start: Tensor | None) -> None:
        step_size = 2.5 * search.threat.reach(search.x) / self.steps if self.step_size is None else self.step_size
        for restart in range(self.restarts):
            rows = search.standing()
            if len(rows) == 0:
                return
            run = Run(search, rows, restart)
            climb(run, self._start(run, start), self.steps, step_size)

    def _start(self, run: Run, start: Tensor | None) -> Tensor:
        if start is not None and run.restart == 0:
            return run.project(start[run.rows])
        if not self.random_start:
            return run.x
        index = run.search.index[run.rows.cpu()]
        return run.search.threat.random_point(run.x, seed=self.seed, index=index, step=run.restart)
