"""The threat model: what an attacker may do to an image, as a value.

Attacks that follow a gradient never branch on the norm. They ask the threat model to start, to step, to project.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Real

import torch
from torch import Tensor

from robustness_lib.counter_random import bulk_normal, bulk_uniform, uniform
from robustness_lib.shapes import per_example, rows

__all__ = ["ThreatModel"]

# Rounds of the exact L2 projection below. It gains whole pixels each round and rarely needs more than four;
# stopping early leaves the point inside the ball, a hair nearer to x.
_PROJECTION_ROUNDS = 8


@dataclass(frozen=True)
class ThreatModel:
    """All images within distance ε of x, and inside the pixel box [0, 1].

    norm: "linf" (no pixel value moves by more than ε) or "l2" (Euclidean length of the whole change at most ε).
    eps: ε in pixel units of [0, 1], so 8/255 and not 8. Zero allows nothing; an ε larger than the box allows
        every image.

    Raises ValueError for another norm, and for an ε that is negative or not finite.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            hint = (
                " L1 is left out on purpose: its steepest step changes one pixel at a time and the attacks "
                "published for it need projections of their own." if self.norm in ("l1", "L1") else ""
            )
            raise ValueError(f'norm must be "linf" or "l2"; found {self.norm!r}.{hint}')
        if isinstance(self.eps, bool) or not isinstance(self.eps, Real):
            raise TypeError(f"eps must be a number in pixel units of [0, 1], such as 8/255; found {self.eps!r}")
        object.__setattr__(self, "eps", float(self.eps))
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"eps must be finite and at least 0, in pixel units of [0, 1]; found {self.eps}")

    @classmethod
    def parse(cls, text: str) -> ThreatModel:
        """linf:8/255, linf:0.03 or l2:0.5, as commands and recipes write it. Raises ValueError."""
        norm, _, eps = text.partition(":")
        if not re.fullmatch(r"\d+(\.\d*)?(e-?\d+)?(/\d+(\.\d*)?)?|\.\d+", eps):
            raise ValueError(f"a threat is a norm and its ε in pixel units of [0, 1], such as linf:8/255 or l2:0.5; "
                             f"found {text!r}")
        above, _, below = eps.partition("/")
        if below and float(below) == 0:
            raise ValueError(f"the ε of {text!r} divides by zero")
        value = Fraction(above) / Fraction(below or "1")
        if value > 1 and norm.lower() == "linf":
            raise ValueError(f"ε is in pixel units of [0, 1], so linf:{eps} allows every image; "
                             + ("a few levels of 255 are usual, such as linf:8/255" if below else
                                f"did you mean linf:{eps}/255?"))
        return cls(norm.lower(), float(value))

    def __str__(self) -> str:
        return f"{'L2' if self.norm == 'l2' else 'L∞'} {self._in_levels or format(self.eps, 'g')}"

    @property
    def text(self) -> str:
        """As commands and recipes write it: what `parse` reads."""
        return f"{self.norm}:{self._in_levels or self.eps}"

    @property
    def _in_levels(self) -> str | None:
        levels = self.eps * 255
        whole = self.norm == "linf" and abs(levels - round(levels)) < 1e-6
        return f"{round(levels)}/255" if whole else None

    def with_eps(self, eps: float) -> ThreatModel:
        """The same norm at another ε."""
        return replace(self, eps=eps)

    def reach(self, x: Tensor) -> float:
        """How far an image can really get from x (N, ...): ε, or the size of the pixel box where that is smaller."""
        return min(self.eps, 1.0 if self.norm == "linf" else math.sqrt(x[0].numel()))

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` onto the ball around these x, for many calls: what depends on x alone is computed once."""
        if self.norm == "linf":
            low, high = (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1)
            return lambda x_adv: torch.clamp(x_adv, low, high)
        return lambda x_adv: self._project_l2(x_adv, x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of ball ∩ box nearest to x_adv (in Euclidean distance). x_adv, x: (N, ...); x inside the box.

        Exact for L∞, where both sets are boxes. For L2 the nearest point scales the change and clips it, and the
        scale that uses up ε is found by a few monotone rounds: exact to rounding in the usual case, and never
        outside the ball. (Clipping after scaling, as is common, gives a point nearer to x than need be.)
        """
        return self.projection(x)(x_adv)

    def _project_l2(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        room = (delta > 0).to(x.dtype).sub_(x).abs_()  # 1 − x where the pixel grows, x where it falls
        size, room = rows(delta.abs(), x), rows(room, x)
        scale = _largest_scale(size, room, self.reach(x) if len(x) else 0.0)
        return (x + delta * per_example(scale, x)).clamp_(0, 1)

    def random_point(self, x: Tensor, *, seed: int, index: Tensor, step: int = 0) -> Tensor:
        """A random start. x: (N, ...), index: (N,) the examples' numbers in their data set.

        L∞: uniform in ball ∩ box, exactly. L2: uniform in the ball, then clipped to the box; clipping never
        leaves the ball, but points that the box cut off gather on its faces.
        """
        shape = x.shape[1:]
        if self.norm == "linf":
            low, high = (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1)
            u = bulk_uniform(shape, seed=seed, index=index, step=step, dtype=x.dtype)
            return torch.clamp(low + u.to(x.device) * (high - low), low, high)
        direction = bulk_normal(shape, seed=seed, index=index, step=step, dtype=x.dtype).to(x.device)
        # In d dimensions the share of the ball within radius r is (r/ε)^d.
        share = uniform((), seed=seed, index=index, step=step).to(x.device, x.dtype) ** (1 / max(1, shape.numel()))
        return (x + self.steepest_step(direction, 1.0) * per_example(share * self.eps, x)).clamp_(0, 1)

    def steepest_step(self, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        """The change of length `step_size` along which a linear function with this gradient grows most.

        gradient: (N, ...). L∞: step_size · sign(gradient). L2: step_size · gradient / ‖gradient‖, and no step
        where the gradient is zero. A step_size of shape (N,) holds one length per example.
        """
        if self.norm == "linf":
            size = per_example(step_size, gradient) if isinstance(step_size, Tensor) else step_size
            return gradient.sign().mul_(size)
        tiny = torch.finfo(gradient.dtype).tiny
        # Divide by the largest entry first: squares of gradients below 1e-19 underflow in float32.
        largest = torch.linalg.vector_norm(rows(gradient, gradient), ord=math.inf, dim=1).clamp_(min=tiny)
        step = gradient / per_example(largest, gradient)
        length = torch.linalg.vector_norm(rows(step, step), dim=1).clamp_(min=tiny)
        return step.mul_(per_example(step_size / length, step))

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Distance per example in this norm: (N,) float64, computed in float64."""
        delta = (x_adv.double() - x.double()).flatten(1)
        if delta.shape[1] == 0:
            return delta.new_zeros(len(delta))
        distance: Tensor = delta.abs().amax(1) if self.norm == "linf" else delta.norm(dim=1)
        return distance


def _largest_scale(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """The largest s in [0, 1] with Σ min(s·size, room)² ≤ ε², per row. size, room: (N, d), at least 0.

    Start from the s that would be right without a box. Entries beyond their room are fixed there, and the rest may
    take what they leave over: s grows, more entries reach their room, and no round oversteps ε.
    """
    tiny = torch.finfo(size.dtype).tiny
    scale = _fill(torch.full_like(size[:, 0], eps), torch.linalg.vector_norm(size, dim=1), tiny)
    room_squared = room.square()
    for _ in range(_PROJECTION_ROUNDS):
        free = (size * scale[:, None] < room).to(size.dtype)
        left = (eps**2 - torch.linalg.vecdot(1 - free, room_squared)).clamp_(min=0).sqrt()
        grown = _fill(left, torch.linalg.vector_norm(size * free, dim=1), tiny)
        # On a GPU asking would cost more than the rounds that it saves.
        if grown.device.type == "cpu" and not bool((grown > scale).any()):
            break
        scale = torch.maximum(scale, grown)
    return scale


def _fill(length: Tensor, size: Tensor, tiny: float) -> Tensor:
    return (length / size.clamp_(min=tiny)).clamp_(max=1)
