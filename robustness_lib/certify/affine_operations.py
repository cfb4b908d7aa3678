"""Rules of sums, multiples, means, and of what moves or joins entries: linear functions without weights of their own.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robustness_lib.certify.operation import TRACED_BATCH, Affine, Box, Call, Slot

__all__: list[str] = []


class Elementwise(Affine):
    """Sums, differences, and multiples by constants."""

    def __init__(self, call: Call) -> None:
        super().__init__(call.for_one_image(len(call.output)))
        self.separate = call.inputs == (call.output,)

    def check(self) -> None:
        if any(len(shape) != len(self.call.output) for shape in self.call.inputs):
            raise self.call.refuse(f"{self.call.name} pairs each image of a batch with each: keep as many axes on "
                                   f"either side")


class Sum(Elementwise):
    """a + α·b and the like, with whatever is constant in it."""

    names = ("add", "sub", "rsub", "neg", "negative")

    @property
    def _factors(self) -> dict[int, float]:
        """By which each input is multiplied."""
        alpha = self.call.argument(2, "alpha", 1)
        first, second = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}.get(self.call.name, (-1, 0))
        found: dict[int, float] = {}
        for argument, factor in zip(self.call.args[:2], (first, second), strict=False):
            if isinstance(argument, Slot):
                found[argument.number] = found.get(argument.number, 0) + factor
        return found

    def interval(self, *boxes: Box) -> Box:
        flip = [self._factors[number] < 0 for number in range(len(boxes))]
        ends = [Box(box.upper, box.lower) if flipped else box for box, flipped in zip(boxes, flip, strict=True)]
        return Box(self(*(end.lower for end in ends)), self(*(end.upper for end in ends)))


class Multiple(Elementwise):
    """By a constant: c·x, x / c."""

    names = ("mul", "div")

    @classmethod
    def fits(cls, call: Call) -> bool:
        several = sum(isinstance(arg, Slot) for arg in call.args) > 1
        return not several and not (call.name == "div" and not isinstance(call.args[0], Slot)) \
            and call.kwargs.get("rounding_mode") is None

    @cached_property
    def _absolute(self) -> tuple[Any, ...]:
        return tuple(arg if isinstance(arg, Slot) or getattr(arg, "dtype", None) == torch.bool else abs(arg)
                     for arg in self.call.args)

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box.around(self(box.centre), self.call.given(self._absolute, box.radius))


class Increasing(Affine):
    """No input has a negative factor, so that the ends of a box go to the ends of a box."""

    def interval(self, *boxes: Box) -> Box:
        return Box(self(*(box.lower for box in boxes)), self(*(box.upper for box in boxes)))

    def _check_axes(self, given: Any) -> None:
        """Raises UnknownOperation where the batch's is one of them."""
        dimensions = len(self.call.inputs[0]) + 1
        if any(int(axis) % dimensions == 0 for axis in (given if isinstance(given, (list, tuple)) else [given])):
            raise self.call.refuse(f"{self.call.name} acts along the batch, or moves it")


class Average(Increasing):
    """Means over neighbours, and what else acts on the axes of an image alone."""

    names = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
             "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "upsample_nearest1d",
             "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
             "upsample_trilinear3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
             "_upsample_nearest_exact3d", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "pad",
             "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")

    def check(self) -> None:
        if "pad" in self.call.name and len(self.call.args[1]) > 2 * len(self.call.inputs[0]):
            raise self.call.refuse("it pads the batch")
        if (self.call.argument(6, "divisor_override") or 1) < 0:
            raise self.call.refuse("its divisor is negative")


class AlongAxes(Increasing):
    """What acts along the axes that it names: sums, means, parts, and new orders."""

    names = ("mean", "sum", "slice", "select", "squeeze", "permute", "transpose", "swapaxes", "swapdims", "movedim",
             "narrow", "chunk", "split", "split_with_sizes", "unbind", "flip", "index_select", "roll")

    def check(self) -> None:
        name, args = self.call.name, self.call.args
        if name == "permute":
            if args[1][0] != 0:
                raise self.call.refuse("permute moves the batch off the first axis")
        elif name in ("transpose", "swapaxes", "swapdims"):
            self._check_axes(list(args[1:3]))
        elif name == "movedim":
            for axes in args[1:3]:
                self._check_axes(axes)
        elif name == "slice" and self._whole_batch():
            return
        elif name in ("chunk", "split", "split_with_sizes", "roll"):
            self._check_axes(self.call.argument(2, "dim" if name != "roll" else "dims", 0))
        else:
            axes = self.call.argument(1, "dims" if name == "flip" else "dim", 0 if name == "unbind" else None)
            self._check_axes(list(range(len(self.call.inputs[0]) + 1)) if axes is None or axes == [] else axes)

    def _whole_batch(self) -> bool:
        """x[:] of all images."""
        args = self.call.args
        return (args[1] if len(args) > 1 else 0) == 0 and (args[2] if len(args) > 2 else 0) in (0, None) and \
            (len(args) < 4 or args[3] is None or args[3] >= TRACED_BATCH) and (len(args) < 5 or args[4] == 1)

    def __call__(self, *values: Tensor) -> Tensor:
        return values[0] if self.call.name == "slice" and self._whole_batch() else super().__call__(*values)


class Reshape(Increasing):
    """The same numbers in another shape, image by image."""

    names = ("view", "reshape", "flatten", "unflatten", "unsqueeze", "expand", "_unsafe_view", "repeat")

    def check(self) -> None:
        self.separate = self.call.name not in ("expand", "repeat")
        if self.call.name == "repeat" and self.call.args[1][0] != 1:
            raise self.call.refuse("it repeats the images of a batch")

    def __call__(self, *values: Tensor) -> Tensor:
        if self.call.name == "repeat":
            return super().__call__(*values)
        if self.call.name == "expand":
            shape = (*[1] * (len(self.call.output) - len(self.call.inputs[0])), *self.call.inputs[0])
            return values[0].reshape(-1, *shape).expand(-1, *self.call.output)
        return values[0].reshape(len(values[0]), *self.call.output)


class Unchanged(Increasing):
    """What leaves the values of a model in eval mode as they are."""

    names = ("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "contiguous",
             "clone", "alias", "detach", "to", "_to_copy", "lift_fresh_copy")
    separate = True

    def check(self) -> None:
        if "dropout" in self.call.name and self.call.args[2]:
            raise self.call.refuse("dropout draws at random, in eval mode too")
        kept = (torch.float32, torch.float64)
        types = [a for a in (*self.call.args, *self.call.kwargs.values()) if isinstance(a, torch.dtype)]
        if any(dtype not in kept for dtype in types) or self.call.item not in (None, 0):
            raise self.call.refuse(f"it computes in {types[0] if types else 'masks'}, whose rounding no bound covers")

    def __call__(self, *values: Tensor) -> Tensor:
        return values[0]


class Joined(Increasing):
    """Several values beside each other."""

    names = ("cat", "stack")

    def check(self) -> None:
        axis = self.call.argument(1, "dim", 0) % (len(self.call.output) + 1)
        if axis == 0:
            raise self.call.refuse(f"{self.call.name} joins batches")

    def __call__(self, *values: Tensor) -> Tensor:
        axes = len(self.call.output) - (self.call.name == "stack")
        parts = [values[part.number] if isinstance(part, Slot) else
                 self.call.of_one_image(part, axes).expand(len(values[0]), *part.shape[1:])
                 for part in self.call.args[0]]
        return self.call.given((parts, *self.call.args[1:]))


class Fixed(Affine):
    """What takes from the images their shape alone."""

    names = ("zeros_like", "ones_like", "full_like")

    def interval(self, *boxes: Box) -> Box:
        value = self(boxes[0].lower)
        return Box(value, value)

    def backward(self, rows: Tensor) -> list[Tensor]:
        return [rows.new_zeros((len(rows), *self.call.inputs[0]))]
