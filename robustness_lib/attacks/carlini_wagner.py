"""Carlini and Wagner's attack: the nearest error in L2 as a smooth minimization (2017, "Towards evaluating the
robustness of neural networks", arXiv 1608.04644)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustness_lib.attacks._minimum_norm import MinimumNormAttack, NearestRun
from robustness_lib.attacks._search import Goal, Search
from robustness_lib.inputs import check_count
from robustness_lib.losses import Loss, margin_loss
from robustness_lib.shapes import per_example
from robustness_lib.threat import ThreatModel

__all__ = ["CarliniWagnerL2"]

_SQUEEZE = 1 - 1e-6  # arctanh(±1) is infinite
_LARGEST_C = 1e10  # beyond, c times a gradient could leave float32
_LARGEST_ENTRY = 1e18  # of a gradient: its square must fit, too
_DECAY, _DECAY_SQUARES, _ADAM_TINY = 0.9, 0.999, 1e-8
_PROGRESS = 0.9999  # a loss still above this share of what it was at the last look goes nowhere
_LOOKS = 10  # per round


@dataclass(frozen=True)
class CarliniWagnerL2(MinimumNormAttack):
    """Minimizes ‖x' − x‖² + c · max(κ − margin, 0) over x' = (tanh w + 1)/2, which cannot leave the box.

    The margin is max over i ≠ y of z_i − z_y, or z_t − max over i ≠ t of z_i when targeted. (As published, the second
    term is c · max(−margin, −κ): the same but for a constant.) Each example has its own c, Adam and end.

    confidence: κ; only points with a margin of at least κ count as found. search_steps: values of c tried per example;
    c grows tenfold until one succeeds, then the interval is halved. steps: of Adam for each c, one gradient each,
    with one forward pass more per c. An example whose loss has stopped falling leaves that round early. lr: Adam's
    learning rate; its first steps change each pixel by up to lr/2, so errors nearer than a few such steps are met more
    closely with a smaller one. initial_c: the first c. The nearest success over all c and all steps is kept.

    A model that says it answers at random (see `SquareAttack`) is asked again about each success, and one that it does
    not repeat is none.

    `start=` is where each round begins instead of at x (clamped to the box). Distances are measured from x.
    """

    norm: ClassVar[str] = "l2"

    confidence: float = 0.0
    search_steps: int = 9
    steps: int = 1000
    lr: float = 0.01
    initial_c: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("search_steps", self.search_steps)
        check_count("steps", self.steps)
        if not 0 <= self.confidence < math.inf:
            raise ValueError(f"confidence must be finite and at least 0, in units of logits; found {self.confidence}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite; found {self.lr}")
        if not 0 < self.initial_c <= _LARGEST_C:
            raise ValueError(f"initial_c must be positive and at most {_LARGEST_C:g}; found {self.initial_c}")

    @property
    def _threat(self) -> ThreatModel:
        return ThreatModel(self.norm, 0.0)

    @property
    def _loss(self) -> Loss:
        return margin_loss

    def _attack(self, search: Search, start: Tensor | None) -> None:
        todo = search.standing()
        done = search.finished[todo]  # nobody, unless the batch is to stay whole
        begin = (search.x if start is None else search.queried.layout.arrange(start))[todo].clamp(0, 1)
        w_begin = torch.arctanh((2 * begin - 1) * _SQUEEZE)
        c = torch.full_like(begin.flatten(1)[:, 0], self.initial_c)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        goal = _Confident(search.goal.loss, search.goal.y, search.goal.target, confidence=self.confidence)
        for number in range(self.search_steps):
            succeeded = self._minimize(_Round(search, todo, number, goal), w_begin, c)
            search.finished[todo] = done  # they were finished for this c alone
            low, high = torch.where(succeeded, low, c), torch.where(succeeded, c, high)
            c = torch.where(high.isinf(), c * 10, (low + high) / 2).clamp_(max=_LARGEST_C)
        search.finished[todo] = True

    def _minimize(self, run: _Round, w: Tensor, c: Tensor) -> Tensor:
        """One round: each example under its own c (M,), from w (M, ...). Returns who succeeded at any step: (M,)."""
        succeeded = torch.zeros_like(c, dtype=torch.bool)
        place = torch.arange(len(c), device=c.device)  # of those still here, among all of the round
        adam = _Adam(w, self.lr)
        loss_before = torch.full_like(c, torch.inf)
        for step in range(self.steps):
            x_adv = adam.image()
            logits, margin, gradient = run.gradient(x_adv)
            if step == 0:
                run.note_blind(gradient)
            succeeded[place] |= run.judge(step, x_adv, margin, logits)
            if step and step % max(1, self.steps // _LOOKS) == 0:
                loss = run.length.square() + c * (self.confidence - margin).clamp_(min=0)
                run.finished |= ~(loss < _PROGRESS * loss_before)
                loss_before = loss
                keep = run.drop_finished()
                if keep is not None:
                    adam.keep(keep)
                    c, loss_before, place, margin, gradient = (
                        t[keep] for t in (c, loss_before, place, margin, gradient))
                if len(place) == 0:
                    return succeeded
            pull = torch.where(margin < self.confidence, c, 0)
            gradient.mul_(per_example(-pull, gradient)).add_(run.change, alpha=2)
            adam.descend(gradient, step + 1)
        x_adv = adam.image()
        logits = run.search.queried.logits(x_adv)
        succeeded[place] |= run.judge(self.steps, x_adv, run.goal.value(logits), logits)
        run.commit()
        return succeeded


class _Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) on w, for images (tanh w + 1)/2; and the memory for it."""

    def __init__(self, w: Tensor, lr: float) -> None:
        self.w, self.lr = w.clone(), lr
        self.mean, self.square = torch.zeros_like(w), torch.zeros_like(w)
        self.tanh, self.scratch = torch.empty_like(w), torch.empty_like(w)
        self.half = w.new_tensor(0.5)

    def keep(self, rows: Tensor) -> None:
        for name in ("w", "mean", "square", "tanh", "scratch"):
            setattr(self, name, getattr(self, name)[rows])

    def image(self) -> Tensor:
        return torch.tanh(self.w, out=self.tanh).mul(0.5).add_(0.5)

    def descend(self, gradient: Tensor, step: int) -> None:
        """Step number `step` (from 1), against a gradient with respect to the image (which is overwritten)."""
        slope = torch.addcmul(self.half, self.tanh, self.tanh, value=-0.5, out=self.scratch)  # of the image in w
        gradient.clamp_(-_LARGEST_ENTRY, _LARGEST_ENTRY).mul_(slope)
        self.mean.lerp_(gradient, 1 - _DECAY)
        self.square.mul_(_DECAY_SQUARES).addcmul_(gradient, gradient, value=1 - _DECAY_SQUARES)
        # Both averages start at zero and are too small by these factors; they go into the step instead.
        unbiased, unbiased_root = 1 - _DECAY**step, math.sqrt(1 - _DECAY_SQUARES**step)
        size = torch.sqrt(self.square, out=self.scratch).add_(_ADAM_TINY * unbiased_root)
        self.w.addcdiv_(self.mean, size, value=-self.lr * unbiased_root / unbiased)


@dataclass(frozen=True)
class _Confident(Goal):
    """Success only with a margin of at least κ."""

    confidence: float = 0.0

    def __getitem__(self, rows: Tensor) -> _Confident:
        picked = super().__getitem__(rows)
        return _Confident(picked.loss, picked.y, picked.target, picked.toward, self.confidence)

    def reached(self, logits: Tensor) -> Tensor:
        return super().reached(logits) & (self.value(logits) >= self.confidence)


class _Round(NearestRun):
    """One value of c per example. What ends an example's round is its loss, and not a success."""

    length: Tensor  # (M,) distances of the points judged last

    def finish(self) -> None:
        pass

    def judge(self, step: int, x_adv: Tensor, margin: Tensor, logits: Tensor) -> Tensor:
        """Offer the points; who of those still in the round succeeded: (M,)."""
        self.length = self.measure(x_adv)
        self.offer(step, x_adv, margin, logits)
        return self.hit & ~self.finished

    def rank(self, x_adv: Tensor, loss: Tensor, success: Tensor) -> Tensor:
        return torch.where(success, -self.length, -torch.inf)
