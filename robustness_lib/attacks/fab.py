"""The fast adaptive boundary attack, targeted version: walk along the decision boundary, always biased back to x
(Croce and Hein 2020, "Minimally distorted adversarial examples", arXiv 1907.02044)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.attacks._hyperplane import Hyperplane
from robustness_lib.attacks._minimum_norm import MinimumNormAttack, NearestRun
from robustness_lib.attacks._search import Search, look_now, next_classes
from robustness_lib.counter_random import bulk_normal, bulk_uniform
from robustness_lib.inputs import check_count
from robustness_lib.losses import PairLoss, targeted_margin_loss
from robustness_lib.shapes import per_example, rows
from robustness_lib.threat import ThreatModel

__all__ = ["FAB"]

_SHORTEST = 1e-8  # keeps the share of the way back defined on the boundary itself
_LARGEST_ENTRY = 1e30  # of a gradient, so that sums over an image stay finite
_RESTART_WITHIN = {"linf": 0.3, "l2": 1.0}  # for examples that nothing is known about


@dataclass(frozen=True)
class FAB(MinimumNormAttack):
    """For each of the likeliest other classes: linearize the boundary to it, step onto it, and lean back towards x.

    norm: "linf" or "l2". steps: per class and restart, each one gradient and one forward pass. restarts: the first
    begins at x, the others near it at random, no farther than half of the best distance so far. target_classes: how
    many other classes to try, likeliest first (all there are, if fewer); the error found may be any class. With
    `target` given, only that class is tried and counts. alpha_max: the largest share of the step back towards x.
    eta: how far beyond the linearized boundary to step (1.05: by 5 %). beta: after each success, continue from this
    share of the way from x to it. stop_within: an example is finished at its first success within this distance, in
    pixel units of [0, 1] (the ε of an evaluation); None looks for the nearest. seed: any whole number, for restarts.

    A model that says it answers at random (see `SquareAttack`) is asked again about each success, and one that it does
    not repeat is none.

    `start=` replaces x as the first point for every class (clamped to the box); a start that is a success counts.
    """

    norm: str = "linf"
    steps: int = 100
    restarts: int = 1
    target_classes: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    stop_within: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "restarts", "target_classes"):
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, least=None)
        if not 0 <= self.alpha_max <= 1:
            raise ValueError(f"alpha_max must lie in [0, 1]; found {self.alpha_max}")
        if not 1 <= self.eta < math.inf:
            raise ValueError(f"eta must be at least 1 (a step onto the boundary) and finite; found {self.eta}")
        if not 0 < self.beta < 1:
            raise ValueError(f"beta must lie strictly between 0 and 1; found {self.beta}")
        _ = self._threat  # refuses a wrong norm or distance

    @property
    def _threat(self) -> ThreatModel:
        return ThreatModel(self.norm, 0.0 if self.stop_within is None else self.stop_within)

    @property
    def _loss(self) -> PairLoss:
        return targeted_margin_loss

    def _attack(self, search: Search, start: Tensor | None) -> None:
        given = search.goal.target
        for number, toward in enumerate(next_classes(search, self.target_classes) if given is None else [given]):
            for restart in range(self.restarts):
                standing = search.standing()
                if len(standing) == 0:
                    return
                run = NearestRun(search, standing, number * self.restarts + restart, search.goal.pull(toward))
                self._walk(run, self._start(run, start, restart))

    def _start(self, run: NearestRun, start: Tensor | None, restart: int) -> Tensor:
        if restart > 0:
            return run.search.queried.layout.arrange(self._random_start(run))
        return run.x if start is None else run.search.queried.layout.arrange(start[run.rows].clamp(0, 1))

    def _random_start(self, run: NearestRun) -> Tensor:
        limit = self.stop_within or _RESTART_WITHIN[self.norm]
        nearest = -run.search.best_rank[run.rows]  # ∞ where there is none
        radius = nearest.clamp(max=limit) / 2
        draw = bulk_uniform if self.norm == "linf" else bulk_normal
        noise = draw(run.x.shape[1:], seed=self.seed, index=run.index, step=run.restart, dtype=run.x.dtype).to(run.x)
        delta = 2 * noise - 1 if self.norm == "linf" else ThreatModel("l2", 1.0).steepest_step(noise, 1.0)
        return (run.x + delta * per_example(radius, delta)).clamp_(0, 1)

    def _walk(self, run: NearestRun, x_adv: Tensor) -> None:
        """`steps` steps along the boundary to the run's class, offering every point."""
        stride = _Stride(self, run.x)
        for step in range(self.steps):
            logits, gap, gradient = run.gradient(x_adv)
            if step == 0:
                run.offer(0, x_adv, gap, logits)
                run.note_blind(gradient)
            else:
                run.count(logits, ~run.finished)
            x_adv = stride.take(x_adv, gap, gradient)
            logits = run.search.queried.logits(x_adv)
            run.offer(step + 1, x_adv, run.goal.value(logits), logits)
            x_adv = stride.fall_back(x_adv, run.goal.reached(logits))
            if self.stop_within is not None and look_now(step):
                keep = run.drop_finished()
                if keep is not None:
                    x_adv, stride = x_adv[keep], _Stride(self, run.x)
                if len(x_adv) == 0:
                    return
        run.commit()


class _Stride:
    """One step from images x_adv towards the boundary and x, and the memory for it."""

    def __init__(self, attack: FAB, x: Tensor) -> None:
        self.attack, self.x = attack, x
        self.plane = Hyperplane(attack.norm, rows(x, x))
        self.onto, self.back, self.fallen = (torch.empty_like(x) for _ in range(3))

    def take(self, x_adv: Tensor, gap: Tensor, gradient: Tensor) -> Tensor:
        """Onto the linearized boundary from x_adv and from x, and a mean of the two points: the nearer x_adv is to
        the boundary, the less of the second. gap: (M,) z_t − z_y at x_adv, with this gradient
        (which is clamped in place)."""
        z, x, w = (rows(t, self.x) for t in (x_adv, self.x, gradient.clamp_(-_LARGEST_ENTRY, _LARGEST_ENTRY)))
        onto, back = rows(self.onto, self.x), rows(self.back, self.x)
        gap_at_x = torch.sub(x, z, out=back).mul_(w).sum(1) + gap  # of the linearization
        self.plane.turn(w)
        length = self.plane.move(z, torch.nan_to_num(gap), out=onto).clamp(min=_SHORTEST)
        length_back = self.plane.move(x, torch.nan_to_num(gap_at_x), out=back).clamp(min=_SHORTEST)
        alpha = (length / (length + length_back)).clamp_(max=self.attack.alpha_max)
        torch.add(z, onto, alpha=self.attack.eta, out=onto)
        torch.add(x, back, alpha=self.attack.eta, out=back)
        onto.lerp_(back, alpha[:, None])
        return self.onto.clamp(0, 1)

    def fall_back(self, x_adv: Tensor, success: Tensor) -> Tensor:
        """After a success, a share β of the way from x to it. Valid until the next call."""
        share = torch.where(success, self.attack.beta, 1.0).to(x_adv)
        return torch.lerp(self.x, x_adv, per_example(share, x_adv), out=self.fallen)
