"""Lines below and above what an operation does inside a box: the form in which bounds go backward through a bend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from robustness_lib.certify.operation import Box, Operation
from robustness_lib.shapes import entries

__all__ = ["SLOPES", "Band", "Bent", "Groups", "Line", "Relaxation", "Slopes", "alone"]

Slopes = Literal["parallel", "adaptive"]
SLOPES: tuple[Slopes, ...] = ("parallel", "adaptive")


class Groups(NamedTuple):
    """Whose some rows are, in groups of `each` rows after one another. images (G,): of each group. rules: by which they
    are bounded; those of each rule follow each other, and there are as many by one as by another."""

    images: Tensor
    each: int
    rules: tuple[Slopes, ...] = ()

    def split(self, rows: Tensor) -> Tensor:
        """(G · each, ...) as (G, each, ...)."""
        return rows.reshape(len(self.images), self.each, *rows.shape[1:])

    def by_rule(self, values: Mapping[Slopes, Tensor]) -> Tensor:
        """From values for each image by rule, (N, ...): those of each group, (G, ...)."""
        parts = zip(self.rules, self.images.chunk(len(self.rules)), strict=True)
        chosen = [values[rule][images] for rule, images in parts]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen)


def alone(images: Tensor) -> Groups:
    """Each row by itself."""
    return Groups(images, 1)


class Line(NamedTuple):
    """slope · v + offset, entry by entry, (N, ...) both."""

    slope: Tensor
    offset: Tensor

    def flat(self) -> Line:
        return Line(entries(self.slope), entries(self.offset))

    def of(self, images: Tensor) -> Line:
        """Of flat ones, for groups of rows: (G, 1, entries)."""
        return Line(self.slope[images][:, None], self.offset[images][:, None])


class Relaxation(ABC):
    """How linear functions of an operation's result become linear functions of its inputs that are nowhere larger,
    inside one box for each image."""

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

    def size(self, sizes: Sequence[Tensor], boxes: Sequence[Box], share: float) -> Tensor:
        found = super().size(sizes, boxes, share)
        return torch.maximum(found, sizes[0]) if self.pointwise else found  # flat ends do not undo earlier rounding

    def undecided(self, boxes: Sequence[Box]) -> list[Tensor]:
        """Entries of each input (N, ...) bool on whose bounds it depends how good the lines are."""
        return [box.upper > box.lower for box in boxes]

    def relax(self, boxes: Sequence[Box]) -> Relaxation | None:
        """None where there are no lines."""
        return None


class Band(Relaxation):
    """Of an operation that acts entry by entry: two lines below and two above each entry, (N, ...), of which a rule
    takes a mixture: whatever lies between two lines below a curve is below it too. shares: of the second ones, by rule.
    bends (N, ...) bool: where the lines below and above differ, or do not pass through 0.
    """

    def __init__(self, lower: tuple[Line, Line], upper: tuple[Line, Line], shares: dict[Slopes, Tensor],
                 bends: Tensor) -> None:
        self._shares, self._bends = shares, entries(bends)
        self.lower, self.upper = ((first.flat(), first.flat() if second is first else second.flat())
                                    for first, second in (lower, upper))
        self._by_rule = {rule: (_mixed(self.lower, entries(share)), _mixed(self.upper, entries(share)))
                         for rule, share in shares.items()}

    def share(self, slopes: Slopes) -> Tensor | None:
        return self._shares[slopes]

    def backward(self, rows: Tensor, groups: Groups, shares: Tensor | None = None
                 ) -> tuple[list[Tensor], Tensor | None]:
        split = entries(groups.split(rows), 2)
        if shares is not None:
            share = entries(groups.split(shares), 2)
            return self._dense(rows, split, *(
                _mixed((first.of(groups.images), first.of(groups.images) if second is first else
                        second.of(groups.images)), share) for first, second in (self.lower, self.upper)))
        below, above = (Line(*(groups.by_rule({rule: lines[side][part] for rule, lines in self._by_rule.items()}
                                              )[:, None] for part in (0, 1))) for side in (0, 1))
        columns = self._bends[groups.images].any(0).nonzero()[:, 0]
        if 4 * len(columns) > self._bends.shape[1]:
            return self._dense(rows, split, below, above)
        # Elsewhere the two lines are one through 0, and one product does.
        back, few = split * above.slope, split[:, :, columns]
        positive, negative = few.clamp(min=0), few.clamp(max=0)
        back[:, :, columns] = positive * below.slope[:, :, columns] + negative * above.slope[:, :, columns]
        added = positive @ below.offset[:, 0, columns, None] + negative @ above.offset[:, 0, columns, None]
        return [back.reshape_as(rows)], added.flatten()

    @staticmethod
    def _dense(rows: Tensor, split: Tensor, below: Line, above: Line) -> tuple[list[Tensor], Tensor | None]:
        positive, negative = split.clamp(min=0), split.clamp(max=0)
        back = (positive * below.slope + negative * above.slope).reshape_as(rows)
        return [back], (positive * below.offset + negative * above.offset).sum(2).flatten()


def _mixed(lines: tuple[Line, Line], share: Tensor) -> Line:
    first, second = lines
    if first is second:
        return first
    return Line(torch.lerp(first.slope, second.slope, share), torch.lerp(first.offset, second.offset, share))
