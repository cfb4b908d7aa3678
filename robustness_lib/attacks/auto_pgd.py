"""Auto-PGD: steps with momentum that halve where the search has stalled; no step size to choose
(Croce and Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.attacks._search import Goal, Run, Search, look_now, next_classes
from robustness_lib.inputs import check_count
from robustness_lib.losses import LOSSES, PAIR_LOSSES, Loss, PairLoss
from robustness_lib.shapes import per_example

__all__ = ["AutoPGD"]

_MOMENTUM = 0.75  # weight of the new step; the rest continues the last one


@dataclass(frozen=True)
class AutoPGD(BoundedAttack):
    """`steps` steps, the first of length 2ε, halved at checkpoints for the examples that have stalled.

    loss: besides those of every attack, "targeted-dlr" and "targeted-margin": one search toward each of the
    `target_classes` classes that follow the label in the clean logits; any wrong class is a success.
    restarts: random starts per example (and class); only survivors are tried again.
    rho: at a checkpoint, halve where no more than this share of the steps since the last one raised the loss.
    eot: draws averaged at each point, for a model that answers at random.
    seed: any whole number; the starts follow from it, the example's index, the restart and the class.

    Raises ValueError for a DLR loss on too few classes (3, and 4 when targeted).
    """

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    target_classes: int = 9
    eot: int = 1
    seed: int = 0

    _named_losses: ClassVar[Mapping[str, Loss | PairLoss]] = {**LOSSES, **PAIR_LOSSES}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "restarts", "target_classes", "eot"):
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, least=None)
        if not 0 < self.rho < 1:
            raise ValueError(f"rho must lie between 0 and 1; found {self.rho}")

    @property
    def _samples(self) -> int:
        return self.eot

    def _attack(self, search: Search, start: Tensor | None) -> None:
        goals = list(self._goals(search))
        for restart in range(self.restarts):
            for number, goal in enumerate(goals, restart * len(goals)):
                rows = search.standing()
                if len(rows) == 0:
                    return
                run = Run(search, rows, number, goal)
                begin = (self._given_start(run, start) if start is not None and restart == 0
                         else self._random_start(run, seed=self.seed, step=number))
                self._climb(run, begin)

    def _goals(self, search: Search) -> Iterator[Goal]:
        if self.loss not in PAIR_LOSSES:
            yield search.goal
        elif search.goal.target is not None:
            yield search.goal.pull(search.goal.target)
        else:
            for toward in next_classes(search, self.target_classes):
                yield search.goal.pull(toward)

    def _climb(self, run: Run, start: Tensor) -> None:
        threat, checkpoints = run.search.threat, _checkpoints(self.steps)
        logits, loss, gradient = run.gradient(start)
        run.offer(0, start, loss, logits)
        run.note_blind(gradient)
        ascent = _Ascent.begin(start, loss, gradient, 2 * threat.reach(run.x))
        for step in range(1, self.steps + 1):
            stepped = run.project(threat.steepest_step(ascent.gradient, ascent.step_size).add_(ascent.x_adv))
            if step > 1:
                # The step and the one before, mixed: x + ¾ (stepped − x) + ¼ (x − x_old).
                rest = 1 - _MOMENTUM
                stepped = run.project(stepped.mul_(_MOMENTUM).add_(ascent.x_adv, alpha=2 * rest)
                                      .sub_(ascent.x_old, alpha=rest))
            ascent.x_old, ascent.x_adv = ascent.x_adv, stepped
            if step == self.steps:
                break
            logits, loss, gradient = run.gradient(stepped)
            better = run.offer(step, stepped, loss, logits)
            ascent.record(loss, gradient, better)
            if step in checkpoints:
                ascent.check(run, self.rho * checkpoints[step])
            if run.search.stop == "success" and look_now(step):
                keep = run.drop_finished()
                if keep is not None:
                    ascent.pick(keep)
                if len(ascent.x_adv) == 0:
                    return
        logits = run.search.queried.logits(ascent.x_adv)
        run.offer(self.steps, ascent.x_adv, run.goal.value(logits), logits)
        run.commit()


@dataclass
class _Ascent:
    """Where each example is, (M, ...) or (M,). Its best point is the run's own, `run.best`."""

    x_adv: Tensor
    x_old: Tensor
    gradient: Tensor
    best_gradient: Tensor
    loss: Tensor
    rises: Tensor  # steps since the last checkpoint that raised the loss
    step_size: Tensor
    halved: Tensor  # at the last checkpoint
    best_rank_then: Tensor  # at the last checkpoint

    @classmethod
    def begin(cls, start: Tensor, loss: Tensor, gradient: Tensor, step_size: float) -> _Ascent:
        # "Halved" at first, so that the first checkpoint asks only whether the loss has been rising.
        return cls(start, start, gradient, gradient, loss, torch.zeros_like(loss), torch.full_like(loss, step_size),
                   torch.ones_like(loss, dtype=torch.bool), loss)

    def record(self, loss: Tensor, gradient: Tensor, better: Tensor) -> None:
        self.rises += loss > self.loss
        self.loss, self.gradient = loss, gradient
        self.best_gradient = torch.where(per_example(better, gradient), gradient, self.best_gradient)

    def check(self, run: Run, enough: float) -> None:
        """Halve where too few steps helped, or where the best loss stood still at the step size of the last check;
        continue there from the best point."""
        stalled = ~self.halved & (self.best_rank_then >= run.best_rank)
        self.halved = (self.rises <= enough) | stalled
        self.best_rank_then = run.best_rank
        self.rises = torch.zeros_like(self.rises)
        self.step_size = torch.where(self.halved, self.step_size / 2, self.step_size)
        mask = per_example(self.halved, self.x_adv)
        self.x_adv = torch.where(mask, run.best, self.x_adv)
        self.gradient = torch.where(mask, self.best_gradient, self.gradient)

    def pick(self, keep: Tensor) -> None:
        for state in fields(self):
            setattr(self, state.name, getattr(self, state.name)[keep])


def _checkpoints(steps: int) -> dict[int, int]:
    """Step → steps since the checkpoint before. In whole numbers: first 22 % of the steps, each interval 3 % of them
    shorter, down to 6 %: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    interval, shorter, least = (max(1, steps * percent // 100) for percent in (22, 3, 6))
    at, found = interval, {}
    while at <= steps:
        found[at] = interval
        interval = max(interval - shorter, least)
        at += interval
    return found
