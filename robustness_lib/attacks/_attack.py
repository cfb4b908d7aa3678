"""What every attack inside a threat model has in common: the call, the checks, the batches, the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from robustness_lib.attacks._inputs import check_count, check_images, check_index, check_labels, check_start
from robustness_lib.attacks._search import Goal, Search, StepObserver
from robustness_lib.attacks._victim import Classifier, Mode, Victim, held_still
from robustness_lib.losses import LOSSES, Loss
from robustness_lib.threat import ThreatModel

__all__ = ["Attack", "AttackResult", "AttackWarning", "Stop"]

Stop = Literal["success", "never"]

# Pixel values in a batch on the CPU: activations of much more fall out of the caches. On `signs-pgd`, 400 images of
# 3×32×32 took about a fifth less time in parts of 128 than at once (one machine, one thread).
_CACHE_VALUES = 400_000


@dataclass(frozen=True)
class AttackWarning:
    """Something that makes a verdict doubtful, and what to do about it."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True)
class AttackResult:
    """What an attack found. All per example, in the order of the images given.

    x_adv: (N, ...) like x. success: (N,) bool. distance: (N,) float64 from x in the threat model's norm.
    queries: (N,) int64 forward passes spent on the example while it stood; gradients: (N,) backward passes.
    calls: batches sent through the model. warnings: reasons for doubt.
    """

    x_adv: Tensor
    success: Tensor
    distance: Tensor
    calls: int
    queries: Tensor
    gradients: Tensor
    warnings: tuple[AttackWarning, ...] = ()


@dataclass(frozen=True)
class Attack(ABC):
    """An attack is a frozen dataclass that you call: x_adv = attack(model, x, y).

    threat: what the attacker may do. loss: "ce", "margin", or any function (logits, labels) -> (N,) to climb.
    stop: "success" ends an example's search at its first success (evaluation); "never" lets every example take all
    its steps and returns the iterate of highest loss (training, transfer, curves).
    mode: "eval" attacks the model in eval mode, "keep" in whatever mode it is.
    The global random generator is neither read nor advanced.
    """

    threat: ThreatModel
    loss: Loss | str = field(default="ce", kw_only=True)
    stop: Stop = field(default="success", kw_only=True)
    mode: Mode = field(default="eval", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.threat, ThreatModel):
            raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {self.threat!r}')
        if isinstance(self.loss, str) and self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {sorted(LOSSES)} or a function; found {self.loss!r}")
        if self.stop not in ("success", "never"):
            raise ValueError(f'stop must be "success" or "never"; found {self.stop!r}')
        if self.mode not in ("eval", "keep"):
            raise ValueError(f'mode must be "eval" or "keep"; found {self.mode!r}')

    @abstractmethod
    def _attack(self, search: Search, start: Tensor | None) -> None:
        """Offer points to the search. `start`: images to begin from, or None for the attack's own."""

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None = None, *,
                 index: Tensor | None = None, start: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """Adversarial images (N, ...); see `run`."""
        return self.run(model, x, y, target, index=index, start=start, batch_size=batch_size).x_adv

    def run(self, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None = None, *,
            index: Tensor | None = None, start: Tensor | None = None, batch_size: int | None = None,
            on_step: StepObserver | None = None) -> AttackResult:
        """Attack the images x (N, ...) in [0, 1], float32 or float64, with labels y (N,) int64.

        target: (N,) int64 classes to reach; success is then ŷ = target, else ŷ ≠ y.
        index: (N,) int64, each image's number in its data set (default 0 ... N − 1): an example's random numbers
        follow it from batch to batch. start: images to begin from (projected first) instead of the attack's own
        start. batch_size: x stays where it is, batches of this size travel to the model's device; None sends all at
        once, or on a CPU (for a model in eval mode, and nobody watching) parts that fit its caches.
        on_step: called with a `Step` at every evaluation.

        Raises TypeError or ValueError, saying what was found and what to do, for images outside [0, 1], integer or
        half-precision images, NaN, labels of the wrong type or out of range, and models without (N, K) logits.
        """
        check_images(x)
        check_labels(y, x)
        if target is not None:
            check_labels(target, x, "target")
        check_start(start, x)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        index = check_index(index, x)
        victim = Victim(model)
        parts: list[Search] = []
        size = batch_size or self._default_batch(x, victim, on_step)
        with held_still(model, self.mode):
            x, y = (t.clone() if t.is_inference() else t.detach() for t in (x, y))
            for first in range(0, len(x), size):
                rows = slice(first, first + size)
                search = self._begin(victim, x[rows], y[rows], None if target is None else target[rows],
                                     index[rows], on_step, first)
                if len(search.standing()):
                    self._attack(search, None if start is None else start[rows].detach().to(search.x))
                search.x = search.best.to(x.device)  # the batch travels back; only its result is kept
                parts.append(search)
        return self._result(x, parts, victim.calls)

    def _default_batch(self, x: Tensor, victim: Victim, on_step: StepObserver | None) -> int:
        # In train mode examples can depend on each other, and an observer expects a step to show everybody.
        if len(x) and on_step is None and self.mode == "eval" and victim.device(x).type == "cpu":
            return max(32, _CACHE_VALUES // x[0].numel())
        return max(1, len(x))

    def _begin(self, victim: Victim, x: Tensor, y: Tensor, target: Tensor | None, index: Tensor,
               on_step: StepObserver | None, offset: int) -> Search:
        x = x.to(victim.device(x))
        labels = (y if target is None else target).to(x.device)
        goal = Goal(LOSSES[self.loss] if isinstance(self.loss, str) else self.loss, labels, target is not None)
        search = Search(victim, self.threat, x, goal, index, self.stop, on_step, offset)
        victim.expect((y,) if target is None else (y, target))
        if self.stop == "success":
            search.success = goal.reached(victim.logits(x))  # already successful: comes back untouched
            search.queries += 1
        return search

    def _result(self, x: Tensor, parts: list[Search], calls: int) -> AttackResult:
        def join(tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
            return torch.cat([t.to(x.device) for t in tensors]) if tensors else torch.empty(0, dtype=dtype)

        x_adv = torch.cat([p.x for p in parts]) if parts else x.clone()
        return AttackResult(
            x_adv=x_adv,
            success=join([p.success for p in parts], torch.bool),
            distance=self.threat.distance(x_adv, x),
            calls=calls,
            queries=join([p.queries for p in parts], torch.int64),
            gradients=join([p.gradients for p in parts], torch.int64),
            warnings=_warnings(parts, len(x)),
        )


def _warnings(parts: list[Search], n: int) -> tuple[AttackWarning, ...]:
    """Only images that were not broken count: a success needs no excuse."""
    blind = sum(int((p.blind & ~p.success).sum()) for p in parts)
    broken_off = sum(int((p.not_a_number & ~p.success).sum()) for p in parts)
    warnings = []
    if blind:
        warnings.append(AttackWarning(
            "zero gradient",
            f"for {blind} of {n} images the loss had a gradient of exactly zero at a start, so these were not really "
            f'attacked. Logits that saturate the softmax do this (try loss="margin"), and so do steps that autograd '
            f"cannot see through (rounding, thresholds). Do not count these images as robust.",
        ))
    if broken_off:
        warnings.append(AttackWarning(
            "not a number",
            f"for {broken_off} of {n} images the model's answer or gradient held NaN or infinities on the way, which "
            f"the attack cannot follow. Look for a square root, logarithm or division at zero in the model. Do not "
            f"count these images as robust.",
        ))
    return tuple(warnings)
