"""Lines under curves: the least and greatest of f(v) − s·v on an interval, for f of convex and concave pieces.

Under any slope s there is a best offset, min (f(v) − s·v). On a concave piece that is at an end. On a convex piece a
bisection closes in on where f′ = s, and a tangent beside it gives the offset: right wherever the bisection ends.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from robustness_lib.certify.operation import Box, Call
from robustness_lib.certify.relaxation import Band, Bent, Line, Relaxation, Slopes

__all__ = ["Activation", "Piece"]

_HALVINGS = 20


class Piece(NamedTuple):
    """f is convex (or else concave) between start and end."""

    start: float
    end: float
    convex: bool


class Activation(Bent):
    """An activation, entry by entry. pieces: in order, from −∞ to ∞; bends and jumps of the derivative lie on their
    ends, or are such as its piece has. turning: where f has a minimum or maximum inside."""

    pieces: ClassVar[tuple[Piece, ...]]
    turning: ClassVar[tuple[float, ...]] = ()

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._pieces, self._turning = self.shape()

    def shape(self) -> tuple[Sequence[Piece], Sequence[float]]:
        """Pieces and turning points, where these depend on the call."""
        return self.pieces, self.turning

    @abstractmethod
    def slope(self, v: Tensor) -> Tensor:
        """f′ (one of the two at a bend)."""

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        at = [*box, *(box.lower.clamp(min=point).minimum(box.upper) for point in self._turning)]
        values = torch.stack([self(v) for v in at])
        return Box(values.amin(0), values.amax(0))

    def size(self, sizes: Sequence[Tensor], boxes: Sequence[Box], share: float) -> Tensor:
        return torch.maximum(self.interval(*boxes).size, self.steepest(boxes[0]).clamp(min=1) * sizes[0])

    def steepest(self, box: Box) -> Tensor:
        """The largest |f′| in the box: on a piece f′ goes one way, so that it is at an end of the box or of a piece."""
        bends = [end for piece in self._pieces for end in (piece.start, piece.end) if math.isfinite(end)]
        beside = [torch.tensor(end, dtype=box.lower.dtype, device=box.lower.device).nextafter(
            box.lower.new_tensor(side)) for end in bends for side in (-math.inf, math.inf)]
        at = [*box, *(end.maximum(box.lower).minimum(box.upper) for end in beside)]
        return torch.stack([self.slope(v).abs() for v in at]).amax(0)

    def relax(self, boxes: Sequence[Box]) -> Relaxation | None:
        (box,) = boxes
        lower, upper = box
        width = upper - lower
        ends = (self(upper) - self(lower)) / width.clamp(min=torch.finfo(width.dtype).tiny)
        middle = (lower + upper) / 2
        chord = torch.where(width > 1e-6 * (1 + middle.abs()), ends, self.slope(middle))
        below, above = (self._lines(box, chord, middle, sign) for sign in (1, -1))
        none = torch.zeros_like(lower)
        shares: dict[Slopes, Tensor] = {"parallel": none, "adaptive": none + 1}
        return Band(below, above, shares, none == 0)

    def _lines(self, box: Box, chord: Tensor, middle: Tensor, sign: int) -> tuple[Line, Line]:
        """Below the curve (or above it, for sign −1): with the chord's slope, and the one that is tightest in the
        middle of the box, among some."""
        slopes = torch.stack([chord, *self._tangents(box, middle, sign)])
        offsets = self._offset(slopes, box, sign)
        best = (sign * (offsets + slopes * middle)).argmax(0, keepdim=True)
        return Line(chord, offsets[0]), Line(slopes.gather(0, best)[0], offsets.gather(0, best)[0])

    def _tangents(self, box: Box, middle: Tensor, sign: int) -> list[Tensor]:
        """Slopes that may be good: on each piece that is bent the right way, of the tangent nearest to the middle, and
        of those through the ends of the curve."""
        found = []
        for piece in self._pieces:
            if piece.convex != (sign > 0):
                continue
            start, end = (v.clamp(piece.start, piece.end) for v in box)
            found.append(self.slope(middle.clamp(piece.start, piece.end).maximum(start).minimum(end)))
            for tip in box:
                # Of tangents at v, the height over the tip falls with the distance from it: f(v) + f′(v)(tip − v).
                near, far = (end, start) if tip is box.upper else (start, end)
                for _ in range(_HALVINGS // 2):
                    v = (near + far) / 2
                    under = sign * (self(v) + self.slope(v) * (tip - v) - self(tip)) <= 0
                    far, near = torch.where(under, v, far), torch.where(under, near, v)
                found.append(self.slope(far))
        return found

    def _offset(self, slope: Tensor, box: Box, sign: int) -> Tensor:
        """The least (for sign −1, the greatest) of f(v) − slope · v in the box, for slopes (m, N, ...)."""
        best = torch.full_like(slope, math.inf)
        for piece in self._pieces:
            start, end = (v.clamp(piece.start, piece.end) for v in box)
            inside = (box.lower <= piece.end) & (box.upper >= piece.start)
            least = self._least_on(slope, start, end, sign, convex=piece.convex == (sign > 0))
            best = torch.where(inside, torch.minimum(best, least), best)
        return sign * best

    def _least_on(self, slope: Tensor, start: Tensor, end: Tensor, sign: int, *, convex: bool) -> Tensor:
        """Of sign · (f(v) − slope · v) on one piece."""
        ends = torch.minimum(sign * (self(start) - slope * start), sign * (self(end) - slope * end))
        if not convex:
            return ends
        low, high = start, end
        for _ in range(_HALVINGS):
            v = (low + high) / 2
            rises = sign * (self.slope(v) - slope) > 0
            low, high = torch.where(rises, low, v), torch.where(rises, v, high)
        # It falls at `low`, or that is the start. Beyond `high` it is no lower than its tangent at `low` is there.
        falls = (sign * (self.slope(low) - slope)).clamp(max=0)
        return torch.minimum(sign * (self(low) - slope * low) + falls * (high - low), ends)
