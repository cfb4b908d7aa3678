"""Adversarial images that survive being saved: on the grid of 8-bit pixels, and asked about there.

An attack works with real numbers. A file holds 256 levels, and rounding moves each pixel by up to half a level: as much
as many a nearest error lies beyond the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustness_lib.attacks._attack import Attack, AttackResult
from robustness_lib.attacks._search import Search, StepObserver
from robustness_lib.inputs import check_images, check_label_range, check_labels, check_targets
from robustness_lib.querying.batch_size import cut, default_batch_size
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.querying.frozen import Classifier, Mode
from robustness_lib.querying.queried_model import QueriedModel
from robustness_lib.shapes import per_example
from robustness_lib.threat import ThreatModel

__all__ = ["GridImages", "Quantized", "quantize"]

_LEVELS = 255
_SLACK = torch.finfo(torch.float32).eps  # what images of a file, k/255, are off by in a type of 24 bits
_ROUNDING = _LEVELS * _SLACK  # the same in levels
# How far along the line from x, and from which part of a level on a pixel moves on, away from x: to the nearest level
# (0.5; more, where these would lie outside an L2 ball); then further and further from x; and less far, which for a
# nearest error may do as well.
_MOST_SHIFT, _HALVINGS = 0.48, 8  # then only what moves by a whole level moves; how exactly that is looked for
_TRIES = ((1, 0.5),
          (1, 0.4), (1, 0.3), (1, 0.2), (1, 0.1), (1, 0.02),
          (1.05, 0.5), (1.1, 0.5), (1.2, 0.5), (1.35, 0.5), (1.5, 0.5), (2, 0.5), (3, 0.5),
          (1, 0.6), (1, 0.7), (1, 0.8), (1, 0.9), (1, 0.98))


class GridImages(NamedTuple):
    """What `quantize` gives, per example.

    levels: (N, ...) uint8, the images as files hold them; levels / 255 in x's type is x_adv. success: (N,) bool, the
    model was asked about exactly this image and errs, and it lies inside the threat model. distance: (N,) float64 from
    x in the threat model's norm. predicted: (N,) int64, what the model answers to it. queries: (N,) int64 forward
    passes spent. calls: batches sent through the model.
    """

    levels: Tensor
    success: Tensor
    distance: Tensor
    predicted: Tensor
    queries: Tensor
    calls: int

    def images(self, like: Tensor) -> Tensor:
        """The levels as pixels in [0, 1], of the type of `like`: what a reader of the files gets."""
        return self.levels.to(like.dtype) / _LEVELS


@dataclass(frozen=True)
class Quantized(Attack):
    """An attack whose images can be saved: each success lies on the grid of 8-bit pixels (multiples of 1/255), inside
    the threat model and the box, and the model, asked once more about that very image, errs there.

    attack: any of this library's, inside a threat model or of minimum norm. What rounding to the nearest level loses is
    looked for a little further from x along the same line, and with more of the pixels rounded away from x, some twenty
    images at most; the nearest of these that is a success is kept. So an image of a minimum-norm attack is a little
    farther away than without, and `distance` is that of the image on the grid.

    What cannot be saved is no success: of an attack inside a threat model the nearest image on the grid comes back, of
    one of minimum norm x, at distance ∞. Images x off the grid are taken as they are: the change is measured from them.
    """

    attack: Attack

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Attack):
            raise TypeError(f"attack must be one of this library's attacks, such as PGD; found {self.attack!r}. Images "
                            f"of others, and of AutoAttack, can be given to quantize()")
        object.__setattr__(self, "mode", self.attack.mode)

    @property
    def threat(self) -> ThreatModel:
        """The attack's; an AttributeError for one of minimum norm, which has none."""
        threat: ThreatModel = self.attack.threat  # type: ignore[attr-defined]
        return threat

    @property
    def norm(self) -> str:
        return self._allowed.norm

    @property
    def follows_gradients(self) -> bool:
        return self.attack.follows_gradients

    @property
    def knows_success(self) -> bool:
        return True

    @property
    def _allowed(self) -> ThreatModel:
        """ε of a minimum-norm attack: any, since nothing in the box is farther than √d."""
        given: Any = getattr(self.attack, "threat", None)
        return given if given is not None else self.attack._threat.with_eps(1e6)  # type: ignore[attr-defined, no-any-return]

    def run(self, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None = None, *,
            index: Tensor | None = None, start: Tensor | None = None, batch_size: int | None = None,
            on_step: StepObserver | None = None) -> AttackResult:
        """See `Attack.run`; the images come back on the grid."""
        found = self.attack.run(model, x, y, target, index=index, start=start, batch_size=batch_size, on_step=on_step)
        grid = quantize(model, x, y, found.x_adv, self._allowed, target, success=found.success, batch_size=batch_size,
                        mode=self.mode, draws=self.attack._samples)
        x_adv, distance = grid.images(x), grid.distance
        if not hasattr(self.attack, "threat"):
            x_adv = torch.where(per_example(grid.success, x), x_adv, x)
            distance = distance.masked_fill(~grid.success, torch.inf)
        return replace(found, x_adv=x_adv, success=grid.success, distance=distance, calls=found.calls + grid.calls,
                       queries=found.queries + grid.queries)

    def _attack(self, search: Search, start: Tensor | None) -> None:
        self.attack._attack(search, start)

    def _search(self, queried: QueriedModel, x: Tensor, y: Tensor, target: Tensor | None, index: Tensor,
                on_step: StepObserver | None, offset: int) -> Search:
        return self.attack._search(queried, x, y, target, index, on_step, offset)

    def _distance(self, x_adv: Tensor, x: Tensor, success: Tensor) -> Tensor:
        return self.attack._distance(x_adv, x, success)


def quantize(model: Classifier, x: Tensor, y: Tensor, x_adv: Tensor, threat: ThreatModel, target: Tensor | None = None,
             *, success: Tensor | None = None, batch_size: int | None = None, mode: Mode = "eval",
             draws: int = 1) -> GridImages:
    """Adversarial images on the grid of 8-bit pixels, near x_adv and inside the threat model; see `Quantized`.

    x, x_adv: (N, ...) in [0, 1]; y, target: (N,) int64. success: (N,) bool, of which images the nearest level alone
    will not do (default: all); of the others it is tried and nothing else. draws: answers averaged, for a model that
    answers at random. Raises TypeError or ValueError for what are no images or labels, and for targets that are the
    labels or no class of the model's.
    """
    x, x_adv = check_images(x), check_images(x_adv)
    check_labels(y, x)
    if target is not None:
        check_targets(target, y, x)
    if x_adv.shape != x.shape:
        raise ValueError(f"x_adv must have x's shape {tuple(x.shape)}; found {tuple(x_adv.shape)}")
    size = batch_size or (default_batch_size(x, QueriedModel(model).device(x)) if x.numel() else 1)
    wanted = torch.ones_like(y, dtype=torch.bool) if success is None else success.to(y.device)
    made: list[GridImages] = []
    for rows in cut(len(x), size):
        aims = None if target is None else target[rows]
        goal = _Goal(model, y[rows], aims, mode, draws, rows.start)
        made.append(_search_grid(_Part(x[rows], x_adv[rows], threat), goal, wanted[rows].cpu()))
    if not made:
        empty = torch.zeros(0, dtype=torch.int64, device=x.device)
        return GridImages(x.to(torch.uint8), empty.bool(), empty.double(), empty, empty, 0)
    levels, hit, distance, predicted, queries = (
        torch.cat([getattr(one, name) for one in made]).to(x.device) for name in GridImages._fields[:5])
    return GridImages(levels, hit, distance, predicted, queries, sum(one.calls for one in made))


class _Part:
    """A batch in levels, float64."""

    def __init__(self, x: Tensor, x_adv: Tensor, threat: ThreatModel) -> None:
        self.pixels, self.threat = x, threat
        self.x = x.double() * _LEVELS
        self.change = x_adv.double() * _LEVELS - self.x
        reach = threat.eps * _LEVELS if threat.norm == "linf" else _LEVELS
        self.low = (self.x - reach - _ROUNDING).ceil().clamp_(min=0)
        self.high = (self.x + reach + _ROUNDING).floor().clamp_(max=_LEVELS)
        self.shift = torch.zeros(len(x), dtype=torch.float64)  # of the part of a level, into the ball
        if threat.norm == "l2":
            self._shift_into_the_ball()

    def _shift_into_the_ball(self) -> None:
        rows = torch.arange(len(self.x))
        nearest, most = torch.zeros_like(rows), _MOST_SHIFT
        inside = self.allows(self.distance(self.levels(nearest, rows), rows))
        low, high = torch.zeros(len(rows), dtype=torch.float64), torch.full((len(rows),), most, dtype=torch.float64)
        for _ in range(_HALVINGS):
            self.shift = (low + high) / 2
            fits = self.allows(self.distance(self.levels(nearest, rows), rows))
            low, high = torch.where(fits, low, self.shift), torch.where(fits, self.shift, high)
        self.shift = torch.where(inside, 0.0, high)

    def levels(self, tries: Tensor, rows: Tensor) -> Tensor:
        """The images at these rows (m,), each by the numbers (m,) of its own try."""
        far, part = (per_example(torch.tensor(column, dtype=torch.float64)[tries].to(self.x.device), self.x)
                     for column in zip(*_TRIES, strict=True))
        place = rows.to(self.x.device)
        part = (part + per_example(self.shift[rows].to(self.x.device), self.x)).clamp_(max=0.5 + _MOST_SHIFT)
        change = self.change[place] * far
        point = self.x[place] + change
        away = torch.where(change > 0, (point - part).ceil(), (point + part).floor())
        moved = torch.where(change.abs() < _ROUNDING, point.round(), away)
        return torch.minimum(torch.maximum(moved, self.low[place]), self.high[place]).clamp_(0, _LEVELS)

    def allows(self, distance: Tensor) -> Tensor:
        """Exactly, where a threat model forgives more: here nothing has to be rounded to fit. In L∞ whole levels are
        compared, and only what float32 makes of k/255 is forgiven."""
        return distance <= self.threat.eps + (_SLACK if self.threat.norm == "linf" else 0)

    def distance(self, levels: Tensor, rows: Tensor) -> Tensor:
        """(m,) float64 on the CPU, of the images as they are read from files."""
        pixels = self.pixels[rows.to(self.x.device)]
        return self.threat.distance(levels.to(pixels.dtype) / _LEVELS, pixels).cpu()


class _Goal(NamedTuple):
    """What is asked of the model about an image. first: the number of the batch's first, for errors."""

    model: Classifier
    y: Tensor
    target: Tensor | None
    mode: Mode
    draws: int
    first: int

    def ask(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The classes predicted (m,) and whether they are a success (m,) bool, on the CPU; NaN is none. Raises
        ValueError for labels and targets that are no class of the model's."""
        logits = predict_logits(self.model, images, size=len(images), mode=self.mode, draws=self.draws)
        for labels in (self.y, self.target):
            if labels is not None:
                check_label_range(labels, logits.shape[1], self.first)
        predicted = logits.argmax(1)
        hit = predicted != self.y.cpu()[rows] if self.target is None else predicted == self.target.cpu()[rows]
        return predicted, hit & ~logits.isnan().any(1)


def _search_grid(part: _Part, goal: _Goal, wanted: Tensor) -> GridImages:
    """wanted: (n,) bool, for whom more than the nearest level is tried."""
    everybody = torch.arange(len(part.x))
    levels = part.levels(torch.zeros_like(everybody), everybody)
    distance = part.distance(levels, everybody)
    predicted, hit = goal.ask(levels.to(part.pixels.dtype) / _LEVELS, everybody)
    found = GridImages(levels.to(torch.uint8), hit & part.allows(distance), distance, predicted,
                       torch.full_like(everybody, goal.draws), goal.draws)
    lost = (wanted & ~found.success).nonzero()[:, 0]
    if len(lost) == 0:
        return found
    calls = found.calls
    order, distances = _order(part, lost)
    for tries in order:
        there = distances.gather(0, tries[None])[0]
        left = (~found.success[lost] & part.allows(there)).nonzero()[:, 0]
        if len(left) == 0:
            continue
        rows = lost[left]
        levels = part.levels(tries[left], rows)
        predicted, hit = goal.ask(levels.to(part.pixels.dtype) / _LEVELS, rows)
        calls += goal.draws
        found.queries[rows] += goal.draws
        place = rows[hit]
        found.levels[place.to(part.x.device)] = levels[hit.to(part.x.device)].to(torch.uint8)
        found.predicted[place], found.distance[place] = predicted[hit], there[left][hit]
        found.success[place] = True
    return found._replace(calls=calls)


def _order(part: _Part, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of each example's tries but the first, which is the nearest level, the numbers by the distance from x; and the
    distances of all by the tries' numbers, of which the first's is ∞. (tries, m) both."""
    distances = torch.stack([part.distance(part.levels(torch.full_like(rows, number), rows), rows)
                             for number in range(1, len(_TRIES))])
    return distances.argsort(dim=0, stable=True) + 1, torch.cat([torch.full_like(distances[:1], torch.inf), distances])
