"""The one loop discipline that attacks share.

A batch of examples, those still standing, the best found for each so far, and what was spent. Finished examples
leave the batch, but only when enough have finished to pay for it: each new batch shape costs a kernel re-plan on
the CPU, and asking how many are left costs a wait on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustness_lib.losses import Loss, PairLoss
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.warnings import AttackWarning
from robustness_lib.shapes import per_example, rows
from robustness_lib.threat import ThreatModel

__all__ = ["Goal", "Run", "Search", "Step", "StepObserver", "look_now", "next_classes"]

_LEAVE = 1 / 16  # finished examples leave once they are this share of the batch
_CONFIRMATIONS = 2  # of a nearest success by a model that answers at random: at even chances one in four passes


@dataclass(frozen=True)
class Goal:
    """What the attack wants. Untargeted: any class but the label. Targeted: one class.

    toward: (N,) for a loss on pairs, the class that the label is to lose to; success is still any of the above.
    """

    loss: Loss | PairLoss
    y: Tensor  # (N,) true labels
    target: Tensor | None = None  # (N,)
    toward: Tensor | None = None  # (N,)

    def __getitem__(self, rows: Tensor) -> Goal:
        def pick(labels: Tensor | None) -> Tensor | None:
            return None if labels is None else labels[rows]

        return Goal(self.loss, self.y[rows], pick(self.target), pick(self.toward))

    def pull(self, toward: Tensor) -> Goal:
        return replace(self, toward=toward)

    def value(self, logits: Tensor) -> Tensor:
        """Per-example loss to climb: (N,)."""
        if self.toward is not None:
            return self.loss(logits, self.y, self.toward)  # type: ignore[call-arg]
        if self.target is not None:
            return -self.loss(logits, self.target)  # type: ignore[call-arg]
        return self.loss(logits, self.y)  # type: ignore[call-arg]

    def reached(self, logits: Tensor) -> Tensor:
        """(N,) bool. An answer with NaN in it is no answer and counts for nobody."""
        prediction = logits.argmax(1)
        hit = prediction != self.y if self.target is None else prediction == self.target
        return hit & ~logits.isnan().any(1)


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
    stop="keep-success": nobody finishes, and the success of highest loss is kept; of one that resists, as before.
    stop="nearest": the success nearest to x is kept, x itself where there is none; an example is finished once it
    has a success within the threat model.
    """

    def __init__(self, queried: QueriedModel, threat: ThreatModel, x: Tensor, goal: Goal, index: Tensor, stop: str,
                 observer: StepObserver | None, offset: int) -> None:
        self.queried, self.threat, self.x, self.goal, self.index, self.stop = queried, threat, x, goal, index, stop
        self.observer, self.offset = observer, offset
        self.best = x.clone()
        self.best_rank = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.finished = torch.zeros_like(self.success)
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.gradients = torch.zeros_like(self.queries)
        self.blind = torch.zeros_like(self.success)  # gradient exactly zero at a start
        self.followed = torch.zeros_like(self.success)  # a gradient led somewhere, once at least
        self.not_a_number = torch.zeros_like(self.success)  # NaN in an answer or a gradient
        self.notes: list[AttackWarning] = []  # reasons for doubt that the attack itself has met
        self._clean: Tensor | None = None

    def clean_logits(self) -> Tensor:
        """The model's answer on x itself (N, K), asked for once."""
        if self._clean is None:
            self._clean = self.queried.logits(self.x)
            self.queries += self.queried.samples
        return self._clean

    @property
    def confirms(self) -> bool:
        return self.stop == "nearest" and self.queried.random

    def confirmed(self, x_adv: Tensor, success: Tensor, goal: Goal, queries: Tensor) -> Tensor:
        """(M,) bool: the successes; where the nearest is kept, those that a model that answers at random repeats. Of
        many points near the boundary the nearest lucky one would be kept else. queries: (M,), counted on."""
        if not self.confirms:
            return success
        success = success.clone()
        for _ in range(_CONFIRMATIONS):
            left = success.nonzero()[:, 0]
            if len(left) == 0:
                break
            answers = self.queried.logits(x_adv)[left] if self.queried.whole else self.queried.logits(x_adv[left])
            success[left] = goal[left].reached(answers)
            queries[left] += self.queried.samples
        return success

    def standing(self) -> Tensor:
        """Positions of the examples that still need work; of all, while one does, where a batch is to stay whole."""
        left = (~self.finished).nonzero()[:, 0]
        return torch.arange(len(self.x), device=left.device) if self.queried.whole and len(left) else left


class Run:
    """One pass over some examples of a search, packed together: what the loop touches at each step is contiguous.

    `best`, `best_rank` and `success` are this run's own; `commit` keeps of each example the better of run and search.
    `hit` says who succeeded at the points offered last. `done`: who needed no work when it began, and is here because
    the batch is to stay whole.
    """

    _STATE = ("best", "best_rank", "success", "finished", "queries", "gradients", "blind", "followed", "not_a_number")
    best: Tensor
    best_rank: Tensor
    success: Tensor
    finished: Tensor
    queries: Tensor
    gradients: Tensor
    blind: Tensor
    followed: Tensor
    not_a_number: Tensor
    done: Tensor
    hit: Tensor  # (M,) bool

    def __init__(self, search: Search, rows: Tensor, restart: int = 0, goal: Goal | None = None) -> None:
        """goal: (for the whole search) instead of the search's own."""
        self.search, self.restart, self.rows = search, restart, rows
        self.x, self.goal = search.x[rows], (goal or search.goal)[rows]
        self.project = search.threat.projection(self.x)
        for name in self._STATE:
            setattr(self, name, getattr(search, name)[rows])
        self.done = self.finished.clone()
        self.best = self.x.clone()
        self.best_rank = torch.full_like(self.best_rank, -torch.inf)
        self.success = torch.zeros_like(self.success)

    @property
    def index(self) -> Tensor:
        """The examples' numbers in their data set, on the CPU."""
        return self.search.index[self.rows.cpu()]

    def gradient(self, x_adv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, climbed loss, and the loss's gradient with NaN as 0: a NaN would walk out of every ball and box."""
        logits, loss, gradient = self.search.queried.gradient(x_adv, self.goal.value)
        standing = ~self.finished
        self.gradients += standing * self.search.queried.samples
        # A sum is NaN where an entry is; infinities of both signs make one too, and are as suspect.
        entries, tiny = rows(gradient, gradient), torch.finfo(gradient.dtype).tiny
        total = entries.sum(1)
        self.not_a_number |= total.isnan() & standing
        # Entries that are not all zero have a sum, or one of them is positive. (The largest magnitude would cost more.)
        # What has underflowed has lost its direction.
        self.followed |= ((total.abs() > tiny) | (entries.amax(1) > tiny)) & standing
        return logits, loss, torch.nan_to_num(gradient)

    def note_blind(self, gradient: Tensor) -> None:
        """Remember who starts without a gradient to follow."""
        self.blind |= (gradient == 0).flatten(1).all(1) & ~self.finished & ~self.not_a_number

    def offer(self, step: int, x_adv: Tensor, loss: Tensor, logits: Tensor) -> Tensor:
        """Keep x_adv[i] (M, ...) for each example where it beats what that example has. Returns where: (M,) bool."""
        better, success = self.weigh(x_adv, loss, logits)
        torch.where(per_example(better, x_adv), x_adv, self.best, out=self.best)
        self.show(step, x_adv, loss, success)
        return better

    def weigh(self, x_adv: Tensor, loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Where x_adv beats what each example has, and where it succeeds: (M,) bool both. All but `best` follows."""
        standing = ~self.finished
        success = self.goal.reached(logits)
        if self.search.confirms:
            success = self.search.confirmed(x_adv, success & standing, self.goal, self.queries)
        self.hit = success
        rank = self.rank(x_adv, loss, success)
        better = standing & (rank > self.best_rank)
        self.best_rank = torch.where(better, rank, self.best_rank)
        self.success = torch.where(better, success, self.success)
        self.count(logits, standing)
        self.finish()
        return better, success

    def ask_again(self) -> None:
        """What the best points are worth under the draws at hand. Of a model that answers at random, a best point
        would otherwise stand by the luckiest of all draws so far, and no better point could pass it."""
        logits, standing = self.search.queried.logits(self.best), ~self.finished
        success = self.goal.reached(logits)
        rank = self.rank(self.best, self.goal.value(logits), success)
        known = standing & ~rank.isnan()  # NaN says nothing, and no rank would pass it
        self.best_rank = torch.where(known, rank, self.best_rank)
        self.success = torch.where(known, success, self.success)
        self.count(logits, standing)

    def rank(self, x_adv: Tensor, loss: Tensor, success: Tensor) -> Tensor:
        if self.search.stop == "never":
            return loss
        if self.search.stop == "keep-success":
            squeezed = loss / (1 + loss.abs())  # rises with the loss, within ±1; its limit where the loss is infinite
            return torch.where(loss.isinf(), loss.sign(), squeezed) + 2 * success
        return torch.where(success, torch.inf, loss)

    def finish(self) -> None:
        """Who needs no further step."""
        if self.search.stop == "success":
            self.finished = self.success | self.done
        elif self.search.stop == "nearest":
            self.finished = (self.success & (self.best_rank >= -self.search.threat.eps)) | self.done

    def count(self, logits: Tensor, standing: Tensor) -> None:
        """An answer was spent on those standing."""
        self.queries += standing * self.search.queried.samples
        self.not_a_number |= logits.isnan().any(1) & standing

    def show(self, step: int, x_adv: Tensor, loss: Tensor, success: Tensor) -> None:
        if self.search.observer is not None:
            rows = self.rows.cpu() + self.search.offset
            self.search.observer(Step(self.restart, step, rows, x_adv.detach().contiguous(), loss, success))

    def drop_finished(self) -> Tensor | None:
        """Let the finished leave, if they are enough. Returns the positions (in this run) of those that remain, by
        which the attack must pick from its own tensors, or None if nobody left. Of a batch that is to stay whole,
        all leave at once."""
        keep = (~self.finished).nonzero()[:, 0]
        if len(keep) > (1 - _LEAVE) * len(self.rows) or (self.search.queried.whole and len(keep)):
            return None
        self.commit()
        self.rows, self.x, self.goal = self.rows[keep], self.x[keep], self.goal[keep]
        self.project = self.search.threat.projection(self.x)
        for name in (*self._STATE, "done"):
            setattr(self, name, getattr(self, name)[keep])
        return keep

    def commit(self) -> None:
        """Write what was found back to the search."""
        search, rows = self.search, self.rows
        for name in ("queries", "gradients", "blind", "followed", "not_a_number"):
            getattr(search, name)[rows] = getattr(self, name)
        better = self.best_rank > search.best_rank[rows]
        search.best[rows] = torch.where(per_example(better, self.best), self.best, search.best[rows])
        search.best_rank[rows] = torch.where(better, self.best_rank, search.best_rank[rows])
        search.success[rows] = torch.where(better, self.success, search.success[rows])
        search.finished[rows] |= self.finished


def next_classes(search: Search, count: int) -> list[Tensor]:
    """The classes that follow the label in the clean logits, nearest first: `count` of them, or all, each (N,)."""
    logits = search.clean_logits()
    others = logits.scatter(1, search.goal.y[:, None], -torch.inf)
    return list(others.topk(min(count, logits.shape[1] - 1), dim=1).indices.unbind(1))


def look_now(step: int) -> bool:
    """Most examples that break at all break at once: look after each of the first four steps, after every second up
    to the sixteenth, then after every fourth."""
    done = step + 1
    return done <= 4 or done % (2 if done <= 16 else 4) == 0
