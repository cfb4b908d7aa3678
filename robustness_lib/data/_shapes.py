"""Signed distances to plane shapes: negative inside, positive outside, in the units of the plane.

Every function takes the coordinates `x` and `y` (tensors of one shape, y pointing down) and returns a
distance for each point. A stroke of half width w is a distance to a line, less w; a union is the smaller of two
distances. Corners may be sharper than the true distance makes them: near the edge, where paint begins, both
agree.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["arc", "box", "disc", "half_plane", "length", "polygon", "segment", "triangle", "union"]


def length(u: Tensor, v: Tensor) -> Tensor:
    # Not length: that costs ten times as much, to be safe from an overflow that cannot happen here.
    return torch.sqrt(u * u + v * v)


def union(*distances: Tensor) -> Tensor:
    """All of the shapes together."""
    out = distances[0]
    for distance in distances[1:]:
        out = torch.minimum(out, distance)
    return out


def disc(x: Tensor, y: Tensor, radius: float, centre: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    return length(x - centre[0], y - centre[1]) - radius


def box(x: Tensor, y: Tensor, half_width: float, half_height: float,
        centre: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    return torch.maximum((x - centre[0]).abs() - half_width, (y - centre[1]).abs() - half_height)


def half_plane(x: Tensor, y: Tensor, angle: float, offset: float) -> Tensor:
    """Everything on the near side of a line: `offset` away from the origin, its outward normal at `angle`."""
    return x * math.cos(angle) + y * math.sin(angle) - offset


def polygon(x: Tensor, y: Tensor, sides: int, inradius: float, turn: float) -> Tensor:
    """A regular polygon about the origin, one side's outward normal at the angle `turn`."""
    step = 2 * math.pi / sides
    out = half_plane(x, y, turn, inradius)
    for k in range(1, sides):
        out = torch.maximum(out, half_plane(x, y, turn + k * step, inradius))
    return out


def triangle(x: Tensor, y: Tensor, inradius: float, reach: float) -> Tensor:
    """An equilateral triangle that points up, centred on the origin; its corners, 2 inradius away, are cut
    off round at the distance `reach`."""
    slanted = x.abs() * math.cos(math.pi / 6) - y * math.sin(math.pi / 6)
    return torch.maximum(torch.maximum(y, slanted) - inradius, disc(x, y, reach))


def segment(x: Tensor, y: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """The distance to a straight line between two points (take away half the stroke's width)."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    u, v = x - start[0], y - start[1]
    along = ((u * dx + v * dy) / (dx * dx + dy * dy)).clamp_(0, 1)
    return length(u - along * dx, v - along * dy)


def arc(x: Tensor, y: Tensor, centre: tuple[float, float], radius: float, facing: float,
        half_angle: float) -> Tensor:
    """The distance to a circle's arc that reaches `half_angle` to both sides of the direction `facing`."""
    c, s = math.cos(facing), math.sin(facing)
    u, v = x - centre[0], y - centre[1]
    along, across = u * c + v * s, (v * c - u * s).abs()
    to_circle = (length(along, across) - radius).abs_()
    c, s = math.cos(half_angle), math.sin(half_angle)
    to_end = length(along - radius * c, across - radius * s)
    # The point lies within the arc's angle when it is on the arc's side of the ray through its end.
    return torch.where(across * c <= along * s, to_circle, to_end)
