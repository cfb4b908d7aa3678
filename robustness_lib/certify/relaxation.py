"""Lines below and above what an operation does inside a box: the form in which bounds go backward through a bend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from robustness_lib.certify.operation import Box, Operation

__all__ = ["SLOPES", "Band", "Bent", "Groups", "Line", "Relaxation", "Slopes", "alone"]

Slopes = Literal["parallel", "adaptive"]
SLOPES: tuple[Slopes, ...] = ("parallel", "adaptive")


class Groups(NamedTuple):
    """Whose some rows are, in groups of `each` rows after one another. images (G,): of each group. places (G,): where
    its lines stand among those of a bend, which are numbered rule by rule, and images within."""

    images: Tensor
    places: Tensor
    each: int

    def split(self, rows: Tensor) -> Tensor:
        """(G · each, ...) as (G, each, ...)."""
        return rows.reshape(len(self.images), self.each, *rows.shape[1:])


def alone(images: Tensor) -> Groups:
    """Each row by itself, by the first rule."""
    return Groups(images, images, 1)


class Line(NamedTuple):
    """slope · v + offset, entry by entry, (N, ...) both; None is no offset."""

    slope: Tensor
    offset: Tensor | None


class Relaxation(ABC):
    """How linear functions of an operation's result become linear functions of its inputs that are nowhere larger,
    inside one box for each image and rule for slopes."""

    @abstractmethod
    def backward(self, rows: Tensor, groups: Groups, shares: Tensor | None = None
                 ) -> tuple[list[Tensor], Tensor | None]:
        """rows (P, ...) of the result as functions of each input (P, ...), and what is added to them (P,).

        shares: in place of the rule's, what each row takes of the second of two lines (as `share` is shaped, with P
        rows).
        """

    @abstractmethod
    def share(self, slopes: Slopes) -> Tensor | None:
        """(N, ...): what the rule takes of the second line. None where there is nothing to choose."""


class Bent(Operation):
    """An operation that is not affine. Without further rules, rows end at it, in its interval.

    pointwise: it acts on each entry of its one input by itself. by_sign: it is straight on either side of 0, so that an
    entry whose sign is known needs no better bounds.
    """

    pointwise: ClassVar[bool] = True
    by_sign: ClassVar[bool] = False

    def undecided(self, boxes: Sequence[Box]) -> list[Tensor]:
        """Entries of each input (N, ...) bool on whose bounds it depends how good the lines are."""
        return [box.upper > box.lower for box in boxes]

    def relax(self, boxes: Sequence[Box], rules: Sequence[Slopes]) -> Relaxation | None:
        """None where there are no lines."""
        return None


class Band(Relaxation):
    """Of an operation that acts entry by entry: two lines below and two above each entry, (N, ...), of which a rule
    takes a mixture: whatever lies between two lines below a curve is below it too. shares: of the second ones, by rule.
    bends (N, ...) bool: where the lines below and above differ.
    """

    def __init__(self, lower: tuple[Line, Line], upper: tuple[Line, Line], shares: dict[Slopes, Tensor],
                 bends: Tensor, rules: Sequence[Slopes]) -> None:
        self.lower, self.upper, self.shares, self.bends = lower, upper, shares, bends.flatten(1)
        self._below = _stacked([_mixed(lower, shares[rule]) for rule in rules])
        self._above = _stacked([_mixed(upper, shares[rule]) for rule in rules])

    def share(self, slopes: Slopes) -> Tensor | None:
        return self.shares[slopes]

    def backward(self, rows: Tensor, groups: Groups, shares: Tensor | None = None
                 ) -> tuple[list[Tensor], Tensor | None]:
        split = groups.split(rows).flatten(2)
        if shares is not None:
            share, places = groups.split(shares).flatten(2), groups.images
            return self._dense(rows, split, _chosen(self.lower, places, share), _chosen(self.upper, places, share))
        below, above = (Line(line.slope[groups.places].flatten(1)[:, None],
                             None if line.offset is None else line.offset[groups.places].flatten(1)[:, None])
                        for line in (self._below, self._above))
        columns = self.bends[groups.images].any(0).nonzero()[:, 0]
        if 4 * len(columns) > self.bends.shape[1] or (above.offset is None) != (below.offset is None):
            return self._dense(rows, split, below, above)
        # Elsewhere the two lines are one, and one product does.
        back = split * above.slope
        few = split[:, :, columns]
        positive, negative = few.clamp(min=0), few.clamp(max=0)
        back[:, :, columns] = positive * below.slope[:, :, columns] + negative * above.slope[:, :, columns]
        if below.offset is None or above.offset is None:
            return [back.reshape_as(rows)], None
        added = positive @ below.offset[:, 0, columns, None] + negative @ above.offset[:, 0, columns, None]
        return [back.reshape_as(rows)], added.flatten()

    def _dense(self, rows: Tensor, split: Tensor, below: Line, above: Line) -> tuple[list[Tensor], Tensor | None]:
        positive, negative = split.clamp(min=0), split.clamp(max=0)
        back = (positive * below.slope + negative * above.slope).reshape_as(rows)
        offsets = [(part * line.offset).sum(2).flatten() for part, line in ((positive, below), (negative, above))
                   if line.offset is not None]
        return [back], torch.stack(offsets).sum(0) if offsets else None


def _mixed(lines: tuple[Line, Line], share: Tensor) -> Line:
    first, second = lines
    if first is second:
        return first
    offset = None if first.offset is None or second.offset is None else torch.lerp(first.offset, second.offset, share)
    return Line(torch.lerp(first.slope, second.slope, share), offset)


def _chosen(lines: tuple[Line, Line], places: Tensor, share: Tensor) -> Line:
    """(G, each, entries)"""
    first, second = (Line(line.slope[places].flatten(1)[:, None],
                          None if line.offset is None else line.offset[places].flatten(1)[:, None]) for line in lines)
    return first if lines[0] is lines[1] else _mixed((first, second), share)


def _stacked(lines: Sequence[Line]) -> Line:
    if len(lines) == 1:
        return lines[0]
    offsets = [line.offset for line in lines if line.offset is not None]
    return Line(torch.cat([line.slope for line in lines]), torch.cat(offsets) if offsets else None)
