"""Rules of the operations that have weights: linear layers, convolutions, products with matrices, batch norm.

A box passes in centre and radius: the centre as any image would, the radius through the absolute values of the weights.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from robustness_lib.certify.operation import Affine, Box, Call, Slot
from robustness_lib.certify.windows import sliding_windows

__all__: list[str] = []


class Weighted(Affine):
    """A call whose second and third arguments are weights and bias, such as a linear layer."""

    names: ClassVar[tuple[str, ...]] = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")

    @cached_property
    def weight(self) -> Tensor:
        return self.call.args[1]  # type: ignore[no-any-return]

    @cached_property
    def _spreading(self) -> tuple[Any, ...]:
        """Arguments with which a box's width becomes the result's radius."""
        return (self.call.args[0], self.weight.abs() / 2, None, *self.call.args[3:])

    def check(self) -> None:
        rest = (*self.call.args[1:], *self.call.kwargs.values())
        if self.call.args[0] != Slot(0) or any(isinstance(argument, Slot) for argument in rest):
            raise self.call.refuse(f"the weights of {self.call.name} follow from the images")

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box.around(self(box.centre), self.call.given(self._spreading, box.width))

    def ball(self, radius: Tensor) -> Tensor | None:
        squares = (self.call.args[0], self.weight.square(), None, *self.call.args[3:])
        return self.call.given(squares, radius.square()).clamp(min=0).sqrt()


class Linear(Weighted):
    names: ClassVar[tuple[str, ...]] = ("linear",)

    def backward(self, rows: Tensor) -> list[Tensor]:
        return [rows @ self.weight]

    def backward_single(self, entries: Tensor) -> Tensor | None:
        return self.weight[entries] if len(self.call.output) == 1 else None


class Convolution(Weighted):
    names = ("conv1d", "conv2d", "conv3d")

    @cached_property
    def _settings(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
        """Stride, padding and dilation along each axis; None where the padding is a word."""
        spatial = self.weight.ndim - 2
        stride, padding, dilation = (self.call.argument(place, name, default) for place, name, default in (
            (3, "stride", 1), (4, "padding", 0), (5, "dilation", 1)))
        if isinstance(padding, str):
            return None
        stride, padding, dilation = ((given,) * spatial if isinstance(given, int) else
                                     (*given,) * (spatial if len(given) == 1 else 1)
                                     for given in (stride, padding, dilation))
        return stride, padding, dilation

    @cached_property
    def _columns(self) -> Tensor:
        return self.weight.flatten(1).t().contiguous()

    @property
    def _groups(self) -> int:
        return self.call.argument(6, "groups", 1)  # type: ignore[no-any-return]

    def backward(self, rows: Tensor) -> list[Tensor]:
        if self._settings is None:
            return super().backward(rows)
        stride, padding, dilation = self._settings
        if self.weight.ndim == 4 and self._groups == 1 and self.weight.shape[1] <= _FEW_CHANNELS:
            columns = torch.bmm(self._columns.expand(len(rows), -1, -1), rows.flatten(2))
            return [functional.fold(columns, self.call.inputs[0][1:], self.weight.shape[2:], dilation, padding, stride)]
        empty = rows.new_empty(()).expand(len(rows), *self.call.inputs[0])  # of the input, the shape alone counts
        back, _, _ = torch.ops.aten.convolution_backward(
            rows, empty, self.weight, None, stride, padding, dilation, False, [0] * len(stride), self._groups,
            [True, False, False])
        return [back]

    def backward_single(self, entries: Tensor) -> Tensor | None:
        """The weights of the entry's channel, where its window lies."""
        if self._settings is None or self._groups > 1:
            return None
        size, window = self.call.output[1:].numel(), self._windows[entries % self.call.output[1:].numel()]
        weights = self.weight.flatten(2)[entries // size]  # (P, channels, entries of a window)
        back = weights.new_zeros((len(entries), self.weight.shape[1], self.call.inputs[0][1:].numel() + 1))
        back.scatter_(2, window[:, None].expand_as(weights), weights)  # the last place is for what is over the edge
        return back[..., :-1].reshape(len(entries), *self.call.inputs[0])

    @cached_property
    def _windows(self) -> Tensor:
        stride, padding, dilation = self._settings or ((), (), ())
        sizes = self.call.inputs[0][1:]
        table = sliding_windows(sizes, self.call.output[1:], self.weight.shape[2:], stride, padding, dilation)
        return torch.where(table < 0, sizes.numel(), table).to(self.weight.device)


# Input channels up to which going back is quicker by a product of matrices than by the convolution's own gradient.
_FEW_CHANNELS = 3


class MatrixProduct(Affine):
    names = ("matmul", "mm")

    def __init__(self, call: Call) -> None:
        super().__init__(call.for_one_image(max(2, len(call.output))))

    def check(self) -> None:
        if self.call.args[0] != Slot(0) or not isinstance(self.call.args[1], Tensor):
            raise self.call.refuse("of a product of matrices, the first has to follow from the images and the second "
                                   "to be constant")

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box.around(self(box.centre), box.radius @ self.call.args[1].abs())


class BatchNorm(Affine):
    """In eval mode, as models are held here; instance norm too, where it has running statistics."""

    names = ("batch_norm", "instance_norm", "_native_batch_norm_legit_no_training")
    separate = True

    def check(self) -> None:
        if self.call.item not in (None, 0):
            raise self.call.refuse("statistics of the batch are used")
        if (not self._in_eval and self.call.args[5]) or self.call.args[3] is None:
            raise self.call.refuse(f"{self.call.name} without running statistics takes them from the images")

    @property
    def _in_eval(self) -> bool:
        """By its very name: then the call has one argument less."""
        return self.call.name.endswith("no_training")

    @cached_property
    def _scale(self) -> Tensor:
        _, weight, _, _, variance = self.call.args[:5]
        eps = self.call.args[6 if self._in_eval else 7]
        scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
        return scale.reshape(-1, *[1] * (len(self.call.output) - 1))  # type: ignore[no-any-return]

    @cached_property
    def _shift(self) -> Tensor:
        _, _, bias, mean, _ = self.call.args[:5]
        shift = -mean.reshape_as(self._scale) * self._scale
        return shift if bias is None else shift + bias.reshape_as(shift)  # type: ignore[no-any-return]

    def __call__(self, *values: Tensor) -> Tensor:
        return values[0] * self._scale + self._shift

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box.around(self(box.centre), box.radius * self._scale.abs())

    def backward(self, rows: Tensor) -> list[Tensor]:
        return [rows * self._scale]
