"""Projected gradient descent on the adversary's side: many small steps, projected back, from several starts
(Madry et al. 2018, arXiv 1706.06083; Kurakin, Goodfellow and Bengio 2017, arXiv 1607.02533, without the start)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from torch import Tensor

from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.attacks._search import Run, Search, look_now
from robustness_lib.errors import callers_level
from robustness_lib.inputs import check_count
from robustness_lib.querying.warnings import AttackWarning, attack_warning

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD(BoundedAttack):
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
        for warning in self._wide_step():
            warnings.warn(str(warning), stacklevel=callers_level())

    def _wide_step(self) -> tuple[AttackWarning, ...]:
        wide = self.step_size is not None and 0 < 2 * self.threat.eps < self.step_size
        return (attack_warning("step size"),) if wide else ()

    def _odd_settings(self, x: Tensor) -> tuple[AttackWarning, ...]:
        return super()._odd_settings(x) + self._wide_step() + self._short_steps(x)

    def _short_steps(self, x: Tensor) -> tuple[AttackWarning, ...]:
        way, reach = self.steps * (self.step_size or math.inf), self.threat.reach(x) if len(x) else 0.0
        if way >= reach * (1 - 1e-6):  # up to rounding
            return ()
        return (AttackWarning("step size", (
            f"{self.steps} steps of {self.step_size:.3g} come no further than {way:.3g} from where they start, and ε "
            f"is {self.threat.eps:.3g}: the edge of the ball, where most errors are, may never be reached. Take more "
            f"steps or wider ones, or leave step_size out: it then follows from ε")),)

    def _attack(self, search: Search, start: Tensor | None) -> None:
        step_size = 2.5 * search.threat.reach(search.x) / self.steps if self.step_size is None else self.step_size
        for restart in range(self.restarts):
            rows = search.standing()
            if len(rows) == 0:
                return
            run = Run(search, rows, restart)
            _climb(run, self._start(run, start), self.steps, step_size)

    def _start(self, run: Run, start: Tensor | None) -> Tensor:
        if start is not None and run.restart == 0:
            return self._given_start(run, start)
        return self._random_start(run, seed=self.seed, step=run.restart) if self.random_start else run.x


def _climb(run: Run, x_adv: Tensor, steps: int, step_size: float) -> None:
    """Projected steepest ascent from x_adv (M, ...), offering every iterate.

    Costs `steps` gradients and one forward pass more, for the last iterate.
    """
    for step in range(steps):
        logits, loss, gradient = run.gradient(x_adv)
        run.offer(step, x_adv, loss, logits)
        if step == 0:
            run.note_blind(gradient)
        x_adv = run.project(run.search.threat.steepest_step(gradient, step_size).add_(x_adv))
        if run.search.stop == "success" and look_now(step):
            keep = run.drop_finished()
            if keep is not None:
                x_adv = x_adv[keep]
            if len(x_adv) == 0:
                return
    logits = run.search.queried.logits(x_adv)
    run.offer(steps, x_adv, run.goal.value(logits), logits)
    run.commit()
