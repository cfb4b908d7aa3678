"""What every attack has in common: the call, the checks, the batches, the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from robustness_lib.attacks._search import Search, StepObserver
from robustness_lib.inputs import check_count, check_images, check_index, check_labels, check_start, check_targets
from robustness_lib.querying.batch_size import cut, default_batch_size
from robustness_lib.querying.frozen import Classifier, Mode, frozen
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.querying.refusals import refused_arrangement
from robustness_lib.querying.warnings import AttackWarning, attack_warning, changed_mode, clamped, joined_warnings

__all__ = ["Attack", "AttackResult"]

_CLEAN_CONFIRMATIONS = 5  # each of several answers, where the model answers at random: it ends the search for an image


@dataclass(frozen=True)
class AttackResult:
    """What an attack found. All per example, in the order of the images given.

    x_adv: (N, ...) like x. success: (N,) bool. distance: (N,) float64 from x in the attack's norm; ∞ where a
    minimum-norm attack found nothing (x_adv is x there).
    queries: (N,) int64 forward passes spent on the example while it stood; gradients: (N,) backward passes.
    calls: batches sent through the model. followed: (N,) bool, a gradient led somewhere from this example (neither
    zero throughout, nor NaN on the way); of an example that stands and was not followed, the attack knows nothing.
    warnings: reasons for doubt.
    """

    x_adv: Tensor
    success: Tensor
    distance: Tensor
    calls: int
    queries: Tensor
    gradients: Tensor
    followed: Tensor
    warnings: tuple[AttackWarning, ...] = ()


@dataclass(frozen=True)
class Attack(ABC):
    """An attack is a frozen dataclass that you call: x_adv = attack(model, x, y).

    mode: "eval" attacks the model in eval mode, "keep" in whatever mode it is.
    The global random generator is neither read nor advanced.
    """

    mode: Mode = field(default="eval", kw_only=True)

    def __post_init__(self) -> None:
        if self.mode not in ("eval", "keep"):
            raise ValueError(f'mode must be "eval" or "keep"; found {self.mode!r}')

    @abstractmethod
    def _attack(self, search: Search, start: Tensor | None) -> None:
        """Offer points to the search. `start`: images to begin from, or None for the attack's own."""

    @abstractmethod
    def _search(self, queried: QueriedModel, x: Tensor, y: Tensor, target: Tensor | None, index: Tensor,
                on_step: StepObserver | None, offset: int) -> Search:
        """The search over one batch."""

    @abstractmethod
    def _distance(self, x_adv: Tensor, x: Tensor, success: Tensor) -> Tensor:
        """(N,) float64 for the result."""

    @property
    def knows_success(self) -> bool:
        """It has seen the model's answer to each point that it calls a success."""
        return True

    def _odd_settings(self, x: Tensor) -> tuple[AttackWarning, ...]:
        """What its settings hardly mean, for images x."""
        return ()

    @property
    def follows_gradients(self) -> bool:
        """It climbs along gradients of the model under attack."""
        return True

    @property
    def _samples(self) -> int:
        """How often the model is asked at each point; see `QueriedModel`."""
        return 1

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
        start. batch_size: x stays where it is, batches of this size (see `cut` for a last image alone) travel
        to the model's device; None sends all at once, or on a CPU (for a model in eval mode, and nobody
        watching) parts that fit its caches.
        on_step: called with a `Step` at every evaluation.

        Raises TypeError or ValueError, saying what was found and what to do, for images outside [0, 1], integer or
        half-precision images, NaN, labels of the wrong type or out of range, targets that are the labels, and models
        without (N, K) logits. Images that rounding has left outside by at most 1e-6 are clamped, in a copy, and a
        warning says so.
        """
        given, x = x, check_images(x)
        check_labels(y, x)
        if target is not None:
            check_targets(target, y, x)
        check_start(start, x)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        index = check_index(index, x)
        queried = QueriedModel(model, self._samples, self.mode)
        size = batch_size or self._default_batch_size(x, queried, on_step)
        batches: list[_Batch] = []
        with refused_arrangement(model, x, self.mode, queried), frozen(model, self.mode), queried.layout:
            x, y = (t.clone() if t.is_inference() else t.detach() for t in (x, y))
            x_adv = torch.empty_like(x, memory_format=torch.contiguous_format)
            queried.expect((y,) if target is None else (y, target))
            for part in cut(len(x), size):
                search = self._begin(queried, x[part], y[part], None if target is None else target[part],
                                     index[part], on_step, part.start)
                if len(search.standing()):
                    self._attack(search, None if start is None else start[part].detach().to(search.x))
                x_adv[part] = search.best
                batches.append(_Batch.of(search, x.device))
                del search  # with its images on the model's device, before the next batch gets there
            warnings = (*clamped(given, x), *self._odd_settings(x), *_warnings(batches, len(x)),
                        *changed_mode(model, self.mode))
        success, queries, gradients, followed, *_ = _Batch.joined(batches, x.device)
        if self.follows_gradients:  # and where it succeeded at once it had no need of one
            followed |= success
        return AttackResult(x_adv, success, self._distance(x_adv, x, success), queried.calls, queries, gradients,
                            followed, warnings)

    def _default_batch_size(self, x: Tensor, queried: QueriedModel, on_step: StepObserver | None) -> int:
        # In train mode examples can depend on each other, and an observer expects a step to show everybody.
        if len(x) and on_step is None and self.mode == "eval" and queried.device(x).type == "cpu":
            return default_batch_size(x, queried.device(x))
        return max(1, len(x))

    def _begin(self, queried: QueriedModel, x: Tensor, y: Tensor, target: Tensor | None, index: Tensor,
               on_step: StepObserver | None, offset: int) -> Search:
        device = queried.device(x)
        x = x.to(device, copy=True)  # a model that works in place must not reach the caller's images
        y, target = y.to(device), None if target is None else target.to(device)
        search = self._search(queried, queried.layout.arrange(x), y, target, index, on_step, offset)
        if search.stop in ("success", "nearest"):  # already successful: comes back untouched
            search.success = search.goal.reached(search.clean_logits())
            for _ in range(_CLEAN_CONFIRMATIONS):
                search.success = search.confirmed(search.x, search.success, search.goal, search.queries)
            search.best_rank[search.success] = torch.inf if search.stop == "success" else 0.0
            search.finished = search.success.clone()
        return search


class _Batch(NamedTuple):
    """What is kept of a batch besides its images: (n,) each, where the caller's images are."""

    success: Tensor
    queries: Tensor
    gradients: Tensor
    followed: Tensor
    blind: Tensor
    not_a_number: Tensor
    notes: tuple[AttackWarning, ...]

    @classmethod
    def of(cls, search: Search, device: torch.device) -> _Batch:
        return cls(search.success.to(device), search.queries.to(device), search.gradients.to(device),
                   (search.followed & ~search.not_a_number).to(device), search.blind.to(device),
                   search.not_a_number.to(device), tuple(search.notes))

    @staticmethod
    def joined(batches: list[_Batch], device: torch.device) -> list[Tensor]:
        """Each column over all batches."""
        if not batches:
            return [torch.empty(0, dtype=dtype, device=device)
                    for dtype in (torch.bool, torch.int64, torch.int64, torch.bool, torch.bool, torch.bool)]
        return [torch.cat(columns) for columns in list(zip(*batches, strict=True))[:-1]]


def _warnings(batches: list[_Batch], n: int) -> tuple[AttackWarning, ...]:
    """Only images that were not broken count: a success needs no excuse."""
    warnings = joined_warnings([note for b in batches for note in b.notes], n)
    success, _, _, _, *seen = _Batch.joined(batches, torch.device("cpu"))
    for kind, marks in zip(("zero gradient", "not a number"), seen, strict=True):
        if images := (marks & ~success).nonzero()[:, 0].tolist():
            warnings.append(attack_warning(kind, images, n))
    return tuple(warnings)
