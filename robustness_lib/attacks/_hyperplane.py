"""The shortest way onto a hyperplane inside the pixel box, without sorting."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Hyperplane"]

_ROUNDS = 12  # two to four are usual; a plane that only just meets the box takes them all
_NEAR_ENOUGH = 3e-3  # of the way to the plane, before the last round's correction (which leaves some 1e-5)
_THERE = 1e-6  # of the way: nothing left but rounding


class Hyperplane:
    """One hyperplane per row, by its normal; points are moved onto it as far as the box lets them.

    The shortest way moves every pixel in the direction that helps, by t (L∞) or by t·|wᵢ| (L2), unless the box stops
    it first. How far that gets, g(t) = Σ |wᵢ| min(t·sᵢ, roomᵢ), is increasing, concave and made of straight pieces.
    A chord through two of its points therefore lies above it from there on: following chords from t = 0 never
    oversteps, and needs no slope, so that a round costs two or three passes over the images.
    """

    def __init__(self, norm: str, like: Tensor) -> None:
        """norm: "linf" or "l2". like: (N, d). Holds the memory for all that follows: on a CPU, fresh memory at each
        step would cost as much as the arithmetic."""
        self.norm = norm
        self.sign, self.weight, self.direction, self.moved = (torch.empty_like(like) for _ in range(4))
        self.scale = self.slope = like.new_ones(len(like))
        self.half = like.new_tensor(0.5)
        # The t that exhausts every room.
        self.most = 1.0 if norm == "linf" else torch.finfo(like.dtype).max / 4

    def turn(self, normal: Tensor) -> Hyperplane:
        """These planes, with normals w (N, d)."""
        tiny = torch.finfo(normal.dtype).tiny
        torch.sign(normal, out=self.sign)
        torch.abs(normal, out=self.weight)
        if self.norm == "linf":
            self.slope = self.weight.sum(1).clamp_(min=tiny)
        else:
            # Squares of gradients below 1e-19 underflow in float32.
            self.scale = self.weight.amax(1).clamp_(min=tiny)
            self.weight.div_(self.scale[:, None])
            self.slope = self.weight.norm(dim=1).square_().clamp_(min=tiny)
        return self

    def move(self, points: Tensor, height: Tensor, out: Tensor) -> Tensor:
        """The shortest change of the points (N, d) in [0, 1] that lowers w·z by `height` (N,), or raises it where that
        is negative, and stays in the box; written to `out` (N, d). Returns its length (N,).

        Where the box holds no such point: the change to the point of the box nearest to the plane, and for its length
        in L∞ the upper bound 1. Where the normal is zero: no change.
        """
        torch.mul(self.sign, -height.sign()[:, None], out=self.direction)
        # 1 − z where the pixel is to grow, z where it is to shrink; exact at pixels 0 and 1.
        room = torch.addcmul(self.half, self.direction, torch.sub(self.half, points, out=out), out=out)
        t = self._solve(height.abs() / self.scale, room)
        torch.mul(self._within(t, room), self.direction, out=out)
        return t if self.norm == "linf" else out.norm(dim=1)

    def _within(self, t: Tensor, room: Tensor) -> Tensor:
        """How far each pixel moves at t: (N, d), in memory that the next call overwrites."""
        if self.norm == "linf":
            return torch.minimum(room, t[:, None], out=self.moved)
        torch.mul(self.weight, t[:, None], out=self.moved)
        return torch.minimum(self.moved, room, out=self.moved)

    def _solve(self, goal: Tensor, room: Tensor) -> Tensor:
        """t (N,) with g(t) = goal, or the largest t where no t suffices."""
        t_before = g_before = torch.zeros_like(goal)
        done = goal < 0  # nobody; each row ends by itself, so that it does not matter who shares the batch
        t = (goal / self.slope).clamp_(max=self.most)
        for _ in range(_ROUNDS):
            g = self._within(t, room).mul_(self.weight).sum(1)
            left = goal - g
            slope = ((g - g_before) / (t - t_before)).clamp_(min=0)
            chord = (t + left / slope).clamp_(max=self.most)
            t_before, g_before, t = t, g, torch.where(~done & (left > _THERE * goal) & (t < self.most), chord, t)
            done = done | (left <= _NEAR_ENOUGH * goal) | (t_before >= self.most)
            # Asking is free on the CPU and a wait on a GPU.
            if t.device.type == "cpu" and bool(done.all()):
                return t
        return torch.where(torch.mul(room, self.weight, out=self.moved).sum(1) <= goal, self.most, t)
