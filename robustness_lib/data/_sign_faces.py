"""The faces of ten European road signs, as layers of paint on the plane.

A face is a function (x, y) -> [(distance, colour), ...], painted from the first layer to the last. The sign's
outer edge reaches about as far as the unit circle; y points down.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robustness_lib.data._shapes import arc, box, disc, length, polygon, segment, triangle, union

Layers = list[tuple[Tensor, str]]
Face = Callable[[Tensor, Tensor], Layers]
Glyph = Callable[[Tensor, Tensor], Tensor]

COLOURS: dict[str, tuple[float, float, float]] = {
    "white": (0.90, 0.90, 0.88),
    "red": (0.74, 0.09, 0.12),
    "blue": (0.07, 0.27, 0.62),
    "yellow": (0.96, 0.74, 0.08),
    "black": (0.07, 0.07, 0.08),
}
"""Linear RGB before the light falls on it; each drawn sign fades them a little in its own way."""


# Letters and digits: the distance to their middle line, in a cell one unit high about the origin.

def _letter_s(x: Tensor, y: Tensor) -> Tensor:
    top = arc(x, y, (0.0, -0.24), 0.24, 1.25 * math.pi, 0.75 * math.pi)
    bottom = arc(x, y, (0.0, 0.24), 0.24, 0.25 * math.pi, 0.75 * math.pi)
    return union(top, bottom)


def _letter_t(x: Tensor, y: Tensor) -> Tensor:
    return union(segment(x, y, (-0.26, -0.48), (0.26, -0.48)), segment(x, y, (0.0, -0.48), (0.0, 0.48)))


def _ring(x: Tensor, y: Tensor, half_width: float = 0.25, half_height: float = 0.48) -> Tensor:
    """The letter O and the digit 0: a line around a stadium."""
    straight = half_height - half_width
    return (length(x, (y.abs() - straight).clamp_(min=0)) - half_width).abs_()


def _letter_p(x: Tensor, y: Tensor) -> Tensor:
    bowl = union(arc(x, y, (0.0, -0.23), 0.25, 0.0, math.pi / 2), segment(x, y, (-0.2, 0.02), (0.0, 0.02)),
                 segment(x, y, (-0.2, -0.48), (0.0, -0.48)))
    return union(bowl, segment(x, y, (-0.22, -0.48), (-0.22, 0.48)))


def _digit_3(x: Tensor, y: Tensor) -> Tensor:
    top = arc(x, y, (-0.02, -0.245), 0.225, -0.2, 0.72 * math.pi)
    bottom = arc(x, y, (-0.02, 0.22), 0.26, 0.2, 0.72 * math.pi)
    return union(top, bottom)


def _digit_5(x: Tensor, y: Tensor) -> Tensor:
    flag = union(segment(x, y, (0.22, -0.48), (-0.19, -0.48)), segment(x, y, (-0.19, -0.48), (-0.23, -0.02)))
    return union(flag, arc(x, y, (-0.02, 0.20), 0.28, 0.0, 0.76 * math.pi))


def _digit_8(x: Tensor, y: Tensor) -> Tensor:
    top = disc(x, y, 0.215, (0.0, -0.26)).abs_()
    return union(top, disc(x, y, 0.255, (0.0, 0.22)).abs_())


def _text(x: Tensor, y: Tensor, glyphs: tuple[Glyph, ...], height: float, pitch: float,
          stroke: float) -> Tensor:
    """A row of glyphs about the origin; `pitch` from one to the next, `stroke` is the line's width."""
    drawn = []
    for k, glyph in enumerate(glyphs):
        shift = (k - (len(glyphs) - 1) / 2) * pitch
        drawn.append(glyph((x - shift) / height, y / height))
    return union(*drawn) * height - stroke / 2


# The faces

def _stop(x: Tensor, y: Tensor) -> Layers:
    octagon = polygon(x, y, 8, 0.0, 0.0)
    text = _text(x, y, (_letter_s, _letter_t, _ring, _letter_p), height=0.56, pitch=0.40, stroke=0.13)
    return [(octagon - 0.94, "white"), (octagon - 0.87, "red"), (text, "white")]


def _give_way(x: Tensor, y: Tensor) -> Layers:
    y = -y + 0.16  # a triangle about its own middle would sit too low in the frame
    return [(triangle(x, y, 0.54, 0.98), "red"), (triangle(x, y, 0.32, 0.62), "white")]


def _no_entry(x: Tensor, y: Tensor) -> Layers:
    plate = disc(x, y, 0.0)
    return [(plate - 0.98, "white"), (plate - 0.92, "red"), (box(x, y, 0.68, 0.19), "white")]


def _speed(first: Glyph) -> Face:
    def face(x: Tensor, y: Tensor) -> Layers:
        plate = disc(x, y, 0.0)
        text = _text(x, y, (first, _ring), height=0.86, pitch=0.58, stroke=0.17)
        return [(plate - 0.98, "red"), (plate - 0.74, "white"), (text, "black")]
    return face


def _keep(side: float) -> Face:
    """side: +1 for an arrow down to the right, -1 for one down to the left."""
    def face(x: Tensor, y: Tensor) -> Layers:
        half = math.sqrt(0.5)
        along, across = (side * x + y) * half, ((y - side * x) * half).abs()
        shaft = torch.maximum((along + 0.08).abs() - 0.58, across - 0.125)
        # Two straight lines that meet at the tip, cut off behind.
        head = torch.maximum((along + across - 0.74) * half, 0.22 - along)
        plate = disc(x, y, 0.0)
        return [(plate - 0.98, "white"), (plate - 0.92, "blue"), (union(shaft, head), "white")]
    return face


def _danger(x: Tensor, y: Tensor) -> Layers:
    y = y - 0.16
    return [(triangle(x, y, 0.54, 0.98), "red"), (triangle(x, y, 0.38, 0.74), "white"),
            (union(segment(x, y, (0.0, -0.40), (0.0, 0.00)) - 0.095, disc(x, y, 0.10, (0.0, 0.23))), "black")]


def _priority_road(x: Tensor, y: Tensor) -> Layers:
    diamond = (x.abs() + y.abs()) * math.sqrt(0.5)
    return [(diamond - 0.70, "black"), (diamond - 0.67, "white"), (diamond - 0.48, "yellow")]


FACES: dict[str, Face] = {
    "stop": _stop,
    "give way": _give_way,
    "no entry": _no_entry,
    "speed 30": _speed(_digit_3),
    "speed 50": _speed(_digit_5),
    "speed 80": _speed(_digit_8),
    "keep left": _keep(-1.0),
    "keep right": _keep(1.0),
    "danger": _danger,
    "priority road": _priority_road,
}
