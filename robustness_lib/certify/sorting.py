"""The rule of sorting, which networks with small Lipschitz constants use as their activation."""

from __future__ import annotations

from robustness_lib.certify.operation import Box
from robustness_lib.certify.relaxation import Bent

__all__ = ["Sorted"]


class Sorted(Bent):
    """Entries along an axis of the image in order. No entry of the result falls when one of the input rises, so that
    the ends of a box, sorted, are the ends of the results. Without lines."""

    names = ("sort",)
    pointwise = False

    def check(self) -> None:
        if self.call.item not in (None, 0):
            raise self.call.refuse("the places of sorted entries are used")
        if self.call.argument(1, "dim", -1) % (len(self.call.inputs[0]) + 1) == 0:
            raise self.call.refuse("it sorts the images of a batch")

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box(self(box.lower), self(box.upper))
