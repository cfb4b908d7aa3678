"""The balls of the threat models, one class for each norm: how to start, to step and to project inside them.

Every ball stands for ball ∩ pixel box. `ThreatModel` says what its methods promise; callers use that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness_lib.counter_random import bulk_normal, bulk_uniform, uniform
from robustness_lib.shapes import per_example, rows

__all__ = ["BALLS", "Ball", "L2Ball", "LinfBall", "largest_scale"]

# Rounds of the exact L2 projection below. It gains whole pixels each round and rarely needs more than four;
# stopping early leaves the point inside the ball, a hair nearer to x.
_PROJECTION_ROUNDS = 8


@dataclass(frozen=True)
class Ball(ABC):
    """All images within ε of x in one norm, and inside the pixel box."""

    eps: float

    @abstractmethod
    def reach(self, x: Tensor) -> float: ...

    @abstractmethod
    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]: ...

    @abstractmethod
    def random_point(self, x: Tensor, *, seed: int, index: Tensor, step: int) -> Tensor: ...

    @abstractmethod
    def steepest_step(self, gradient: Tensor, step_size: float | Tensor) -> Tensor: ...

    @abstractmethod
    def _length(self, delta: Tensor) -> Tensor:
        """(N, d), d ≥ 1, to (N,)."""

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = (x_adv.double() - x.double()).flatten(1)
        return self._length(delta) if delta.shape[1] else delta.new_zeros(len(delta))


class LinfBall(Ball):
    """No pixel value moves by more than ε."""

    def reach(self, x: Tensor) -> float:
        return min(self.eps, 1.0)

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        low, high = self._box(x)
        return lambda x_adv: torch.clamp(x_adv, low, high)

    def random_point(self, x: Tensor, *, seed: int, index: Tensor, step: int) -> Tensor:
        low, high = self._box(x)
        u = bulk_uniform(x.shape[1:], seed=seed, index=index, step=step, dtype=x.dtype)
        return torch.clamp(low + u.to(x.device) * (high - low), low, high)

    def steepest_step(self, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        size = per_example(step_size, gradient) if isinstance(step_size, Tensor) else step_size
        return gradient.sign().mul_(size)

    def _box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1)

    def _length(self, delta: Tensor) -> Tensor:
        return delta.abs().amax(1)


class L2Ball(Ball):
    """The whole change has a Euclidean length of at most ε."""

    def reach(self, x: Tensor) -> float:
        return min(self.eps, math.sqrt(x[0].numel()))

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x_adv: self._project(x_adv, x)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        room = (delta > 0).to(x.dtype).sub_(x).abs_()  # 1 − x where the pixel grows, x where it falls
        size, room = rows(delta.abs(), x), rows(room, x)
        scale = largest_scale(size, room, self.reach(x) if len(x) else 0.0)
        return (x + delta * per_example(scale, x)).clamp_(0, 1)

    def random_point(self, x: Tensor, *, seed: int, index: Tensor, step: int) -> Tensor:
        shape = x.shape[1:]
        direction = bulk_normal(shape, seed=seed, index=index, step=step, dtype=x.dtype).to(x.device)
        # In d dimensions the share of the ball within radius r is (r/ε)^d.
        share = uniform((), seed=seed, index=index, step=step).to(x.device, x.dtype) ** (1 / max(1, shape.numel()))
        return (x + self.steepest_step(direction, 1.0) * per_example(share * self.eps, x)).clamp_(0, 1)

    def steepest_step(self, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        tiny = torch.finfo(gradient.dtype).tiny
        # Divide by the largest entry first: squares of gradients below 1e-19 underflow in float32.
        largest = torch.linalg.vector_norm(rows(gradient, gradient), ord=math.inf, dim=1).clamp_(min=tiny)
        step = gradient / per_example(largest, gradient)
        length = torch.linalg.vector_norm(rows(step, step), dim=1).clamp_(min=tiny)
        return step.mul_(per_example(step_size / length, step))

    def _length(self, delta: Tensor) -> Tensor:
        length: Tensor = delta.norm(dim=1)
        return length


BALLS: Mapping[str, type[LinfBall] | type[L2Ball]] = {"linf": LinfBall, "l2": L2Ball}


def largest_scale(size: Tensor, room: Tensor, eps: float, most: float = 1.0) -> Tensor:
    """The largest s in [0, most] with Σ min(s·size, room)² ≤ ε², per row. size, room: (N, d), at least 0.

    Start from the s that would be right without a box. Entries beyond their room are fixed there, and the rest may
    take what they leave over: s grows, more entries reach their room, and no round oversteps ε.
    """
    tiny = torch.finfo(size.dtype).tiny
    scale = _fill(torch.full_like(size[:, 0], eps), torch.linalg.vector_norm(size, dim=1), tiny, most)
    room_squared = room.square()
    for _ in range(_PROJECTION_ROUNDS):
        free = (size * scale[:, None] < room).to(size.dtype)
        left = (eps**2 - torch.linalg.vecdot(1 - free, room_squared)).clamp_(min=0).sqrt()
        grown = _fill(left, torch.linalg.vector_norm(size * free, dim=1), tiny, most)
        # On a GPU asking would cost more than the rounds that it saves.
        if grown.device.type == "cpu" and not bool((grown > scale).any()):
            break
        scale = torch.maximum(scale, grown)
    return scale


def _fill(length: Tensor, size: Tensor, tiny: float, most: float) -> Tensor:
    return (length / size.clamp_(min=tiny)).clamp_(max=most)
