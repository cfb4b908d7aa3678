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

__all__ = ["Goal", "Run", "Search", "Step", "StepObserver", "climb"]

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
    """One batch under attack: the best found for each example so far, and what was spent. Attacks differ in how they
    propose points; all of them offer their points to a `Run` over the examples still standing.

    stop="success": an example is finished at its first success, and that point is kept; of one that resists, the
    point of highest loss. stop="never": nobody finishes, and the point of highest loss is kept in any case.
    """

    def __init__(self, victim: Victim, threat: ThreatModel, x: Tensor, goal: Goal, index: Tensor, stop: str,
                 observer: StepObserver | None, offset: int) -> None:
        self.victim, self.threat, self.x, self.goal, self.index, self.stop = victim, threat, x, goal, index, stop
        self.observer, self.offset = observer, offset
        self.best = x.clone()
        self.best_loss = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.gradients = torch.zeros_like(self.queries)
        self.blind = torch.zeros_like(self.success)  # gradient exactly zero at a start
        self.not_a_number = torch.zeros_like(self.success)  # NaN in an answer or a gradient

    def standing(self) -> Tensor:
        """Positions of the examples that still need work."""
        everybody = torch.ones_like(self.success) if self.stop == "never" else ~self.success
        return everybody.nonzero()[:, 0]


class Run:
    """One pass over some examples of a search, packed together: what the loop touches at each step is contiguous."""

    _STATE = ("best", "best_loss", "success", "queries", "gradients", "blind", "not_a_number")
    best: Tensor
    best_loss: Tensor
    success: Tensor
    queries: Tensor
    gradients: Tensor
    blind: Tensor
    not_a_number: Tensor

    def __init__(self, search: Search, rows: Tensor, restart: int = 0) -> None:
        self.search, self.restart = search, restart
        self._pack(rows)

    def _pack(self, rows: Tensor) -> None:
        self.rows, self.x, self.goal = rows, self.search.x[rows], self.search.goal[rows]
        self.project = self.search.threat.projection(self.x)
        for name in self._STATE:
            setattr(self, name, getattr(self.search, name)[rows])

    def standing(self) -> Tensor:
        """(M,) bool."""
        return torch.ones_like(self.success) if self.search.stop == "never" else ~self.success

    def gradient(self, x_adv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, climbed loss, and the loss's gradient with NaN as 0: a NaN would walk out of every ball and box."""
        logits, loss, gradient = self.search.victim.gradient(x_adv, self.goal.value)
        standing = self.standing()
        self.gradients += standing
        # A sum is NaN where an entry is; infinities of both signs make one too, and are as suspect.
        self.not_a_number |= gradient.flatten(1).sum(1).isnan() & standing
        return logits, loss, torch.nan_to_num(gradient)

    def note_blind(self, gradient: Tensor) -> None:
        """Remember who starts without a gradient to follow."""
        self.blind |= (gradient == 0).flatten(1).all(1) & self.standing() & ~self.not_a_number

    def offer(self, step: int, x_adv: Tensor, loss: Tensor, logits: Tensor) -> None:
        """Keep x_adv[i] (M, ...) for each example where it beats what that example has."""
        success, standing = self.goal.reached(logits), self.standing()
        rank = loss if self.search.stop == "never" else torch.where(success, torch.inf, loss)
        better = standing & ((rank > self.best_loss) | (success & (self.search.stop == "success")))
        mask = better.view(-1, *[1] * (x_adv.ndim - 1))
        torch.where(mask, x_adv, self.best, out=self.best)
        self.best_loss = torch.where(better, rank, self.best_loss)
        self.success = torch.where(better, success, self.success)
        self.queries += standing
        self.not_a_number |= logits.isnan().any(1) & standing
        if self.search.observer is not None:
            rows = self.rows.cpu() + self.search.offset
            self.search.observer(Step(self.restart, step, rows, x_adv.detach(), loss, success))

    def drop_finished(self, x_adv: Tensor) -> Tensor:
        """Let the finished leave, if they are enough. Returns the x_adv of those that remain."""
        keep = self.standing().nonzero()[:, 0]
        if len(keep) > (1 - _LEAVE) * len(self.rows):
            return x_adv
        self.commit()
        self._pack(self.rows[keep])
        return x_adv[keep]

    def commit(self) -> None:
        """Write what was found back to the search."""
        for name in self._STATE:
            getattr(self.search, name)[self.rows] = getattr(self, name)


def climb(run: Run, x_adv: Tensor, steps: int, step_size: float) -> None:
    """Projected steepest ascent from x_adv (M, ...), offering every iterate.

    Costs `steps` gradients and one forward pass more, for the last iterate.
    """
    for step in range(steps):
        logits, loss, gradient = run.gradient(x_adv)
        run.offer(step, x_adv, loss, logits)
        if step == 0:
            run.note_blind(gradient)
        x_adv = run.project(run.search.threat.steepest_step(gradient, step_size).add_(x_adv))
        if run.search.stop == "success" and _look_now(step):
            x_adv = run.drop_finished(x_adv)
            if len(x_adv) == 0:
                return
    logits = run.search.victim.logits(x_adv)
    run.offer(steps, x_adv, run.goal.value(logits), logits)
    run.commit()


def _look_now(step: int) -> bool:
    """Most examples that break at all break at once: look after steps 1, 2, 4, 8, then after every eighth."""
    done = step + 1
    return done % 8 == 0 or done & (done - 1) == 0
