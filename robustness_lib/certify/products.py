"""The rule of products of two values that both follow from the images, as in gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustness_lib.certify.operation import Box, Call, Slot
from robustness_lib.certify.relaxation import Bent, Groups, Relaxation, Slopes
from robustness_lib.shapes import entries

__all__: list[str] = []


class Product(Bent):
    """a·b under and over the planes that touch it at corners of the box (McCormick 1976)."""

    names = ("mul",)
    pointwise = False

    @classmethod
    def fits(cls, call: Call) -> bool:
        return all(isinstance(arg, Slot) for arg in call.args) and len(call.inputs) == 2 and \
            len(call.inputs[0]) == len(call.inputs[1])

    def interval(self, *boxes: Box) -> Box:
        a, b = boxes
        corners = torch.stack([self(one, other) for one in a for other in b])
        return Box(corners.amin(0), corners.amax(0))

    def relax(self, boxes: Sequence[Box]) -> Relaxation | None:
        return _Planes(boxes)


class _Planes(Relaxation):
    def __init__(self, boxes: Sequence[Box]) -> None:
        self._a, self._b = boxes
        like = self._a.lower * self._b.lower
        self._share: dict[Slopes, Tensor] = {"parallel": torch.zeros_like(like), "adaptive": torch.ones_like(like)}

    def share(self, slopes: Slopes) -> Tensor | None:
        return self._share[slopes]

    def backward(self, rows: Tensor, groups: Groups, shares: Tensor | None = None
                 ) -> tuple[list[Tensor], Tensor | None]:
        share = groups.by_rule(self._share)[:, None] if shares is None else groups.split(shares)
        (a_low, a_high), (b_low, b_high) = (tuple(bound[groups.images][:, None] for bound in box)
                                            for box in (self._a, self._b))
        split = groups.split(rows)
        positive, negative = split.clamp(min=0), split.clamp(max=0)
        # a·b ≥ q·a + p·b − p·q at the corners (low, low) and (high, high), ≤ at (low, high) and (high, low).
        parts = [(positive * (1 - share), a_low, b_low), (positive * share, a_high, b_high),
                 (negative * (1 - share), a_low, b_high), (negative * share, a_high, b_low)]
        of_a = torch.stack([weight * q for weight, _, q in parts]).sum(0).flatten(0, 1)
        of_b = torch.stack([weight * p for weight, p, _ in parts]).sum(0).flatten(0, 1)
        offset = -torch.stack([entries(weight * p * q, 2).sum(2) for weight, p, q in parts]).sum(0).flatten()
        shapes = [(len(rows), *box.lower.shape[1:]) for box in (self._a, self._b)]
        return [of_a.sum_to_size(shapes[0]), of_b.sum_to_size(shapes[1])], offset
