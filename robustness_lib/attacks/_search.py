"""The one loop discipline that gradient attacks share.

A batch of examples, those still standing, the best found for each so far, and what was spent. Finished examples
leave the batch, but only when enough have finished to pay for it: each new batch shape costs a kernel re-plan on
the CPU, and asking how many are left costs a wait on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.attacks._victim import Victim
from robustness_lib.losses import Loss
from robustness_lib.threat import ThreatModel

__all__ = ["Goal", "Search", "Step", "StepObserver", "climb"]

_LEAVE = 1 / 8  # finished examples leave once they are this share of the batch


@dataclass(frozen=True)
class Goal:
    """What the attack wants. Untargeted: any class but the label. Targeted: one class."""

    loss: Loss
    labels: Tensor  # (N,) true labels, or the targets
    targeted: bool

    def __getitem__(self, rows: Tensor) -> Goal:
        return Goal(self.loss, self.labels[rows], self.targeted)

    def value(self, logits: Tensor) -> Tensor:
        """Per-example loss to climb: (N,)."""
        return -self.loss(logits, self.labels) if self.targeted else self.loss(logits, self.labels)

    def reached(self, logits: Tensor) -> Tensor:
        """(N,) bool. An answer with NaN in it is no answer and counts for nobody."""
        hit = logits.argmax(1) == self.labels
        return (hit if self.targeted else ~hit) & ~logits.isnan().any(1)


@dataclass(frozen=True)
class Step:
    """One step as an observer sees it: the iterates that were just evaluated, and what the model made of them."""

    restart: int
    step: int  # 0 is the start
    rows: Tensor  # (M,) positions in the images given to the attack
    x_adv: Tensor  # (M, ...)
    loss: Tensor  # (M,) the climbed loss
    success: Tensor  # (M,) bool


StepObserver = Callable[[Step], None]


class Search:
    """One batch under attack. Attacks differ in how they propose points; all of them offer points here.

    stop="success": an example is finished at its first success, and that point is kept; of one that resists, the
    point of highest loss. stop="never": nobody finishes, and the point of highest loss is kept in any case.
    """

    def __init__(self, victim: Victim, threat: ThreatModel, x: Tensor, goal: Goal, index: Tensor, stop: str,
                 observer: StepObserver | None, offset: int) -> None:
        self.victim, self.threat, self.x, self.goal, self.index, self.stop = victim, threat, x, goal, index, stop
        self.best = x.clone()
        self.best_loss = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.gradients = torch.zeros_like(self.queries)
        self.zero_gradient = torch.zeros_like(self.success)
        self._observer, self._offset, self._restart = observer, offset, 0

    def standing(self) -> Tensor:
        """(N,) bool: the examples that still need work."""
        return torch.ones_like(self.success) if self.stop == "never" else ~self.success

    def start_restart(self, restart: int) -> Tensor:
        """Positions of the examples that this restart works on."""
        self._restart = restart
        return self.standing().nonzero()[:, 0]

    def offer(self, rows: Tensor, step: int, x_adv: Tensor, loss: Tensor, logits: Tensor) -> None:
        """Keep x_adv[i] for example rows[i] where it beats what that example has. All (M, ...)."""
        success = self.goal[rows].reached(logits)
        standing = self.standing()[rows]
        rank = loss if self.stop == "never" else torch.where(success, torch.inf, loss)
        better = standing & (rank > self.best_loss[rows])
        if self.stop == "success":
            better |= standing & success
        mask = better.view(-1, *[1] * (x_adv.ndim - 1))
        self.best[rows] = torch.where(mask, x_adv, self.best[rows])
        self.best_loss[rows] = torch.where(better, rank, self.best_loss[rows])
        self.success[rows] = torch.where(better, success, self.success[rows])
        self.queries[rows] += standing
        if self._observer is not None:
            self._observer(Step(self._restart, step, rows.cpu() + self._offset, x_adv.detach(), loss, success))


def climb(search: Search, rows: Tensor, x_adv: Tensor, steps: int, step_size: float) -> None:
    """Projected steepest ascent from x_adv (M, ...) for the examples `rows` (M,), offering every iterate.

    Costs steps gradients and one forward pass more, for the last iterate.
    """
    x, goal = search.x[rows], search.goal[rows]
    for step in range(steps):
        logits, loss, gradient = search.victim.gradient(x_adv, goal.value)
        search.gradients[rows] += search.standing()[rows]
        search.offer(rows, step, x_adv, loss, logits)
        if step == 0:
            search.zero_gradient[rows] |= (gradient == 0).flatten(1).all(1) & search.standing()[rows]
        gradient = torch.nan_to_num(gradient)  # a NaN would walk out of every ball and box
        x_adv = search.threat.project(x_adv + search.threat.steepest_step(gradient, step_size), x)
        if search.stop == "success" and _look_now(step):
            keep = search.standing()[rows].nonzero()[:, 0]
            if len(keep) == 0:
                return
            if len(keep) <= (1 - _LEAVE) * len(rows):
                rows, x_adv, x, goal = rows[keep], x_adv[keep], x[keep], goal[keep]
    logits = search.victim.logits(x_adv)
    search.offer(rows, steps, x_adv, goal.value(logits), logits)


def _look_now(step: int) -> bool:
    """Most examples that break at all break at once: look after steps 1, 2, 4, 8, then after every eighth."""
    done = step + 1
    return done % 8 == 0 or done & (done - 1) == 0
