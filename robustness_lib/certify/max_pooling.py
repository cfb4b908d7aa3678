"""The rule of max pooling, of whatever windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from robustness_lib.certify.operation import Box
from robustness_lib.certify.relaxation import Bent, Groups, Relaxation, Slopes
from robustness_lib.certify.windows import joined_windows, sliding_windows

__all__: list[str] = []


class MaxPool(Bent):
    """Below: one of its inputs. Above: where one input of a window is surely the largest, that input; otherwise
    max(top, c) under its chord, with `top` the input of the largest upper bound and c the next largest one."""

    names = ("max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
             "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
    pointwise = False

    def check(self) -> None:
        if self.call.item not in (None, 0):
            raise self.call.refuse("the places of the largest values are used")
        if f"{len(self.call.inputs[0]) - 1}d" not in self.call.name:
            raise self.call.refuse(f"{self.call.name} takes the images of a batch for channels: give each an axis of "
                                   f"channels, x[:, None]")

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box(self(box.lower), self(box.upper))

    def undecided(self, boxes: Sequence[Box]) -> list[Tensor]:
        """Inputs that may be the largest of a window in which others may be, too."""
        ((lower, upper),) = boxes
        table = self.windows
        floor, tops = _windowed(lower, table).amax(-1, keepdim=True), _windowed(upper, table)
        rivals = (tops >= floor) & ((tops >= floor).sum(-1, keepdim=True) > 1)
        touched = torch.zeros_like(lower.flatten(2)[..., :1]).expand_as(lower.flatten(2)).contiguous()
        flat = table.clamp(min=0).flatten().expand(*rivals.shape[:2], -1)
        touched.scatter_add_(2, flat, (rivals & (table >= 0)).flatten(2).to(lower.dtype))
        return [(touched > 0).reshape(lower.shape)]

    def relax(self, boxes: Sequence[Box]) -> Relaxation | None:
        (box,) = boxes
        return _Windows(self, box)

    @cached_property
    def windows(self) -> Tensor:
        """(windows, inputs of one): places among an image's entries of one channel; −1 where there is none."""
        sizes, results = self.call.inputs[0][1:], self.call.output[1:]
        if self.call.name.startswith("adaptive"):
            return joined_windows([_adaptive(size, count) for size, count in zip(sizes, results, strict=True)], sizes)
        axes = range(len(sizes))
        kernel = [self._each(1, "kernel_size", axis, 1) for axis in axes]
        stride = [self._each(2, "stride", axis, kernel[axis]) for axis in axes]
        padding, dilation = ([self._each(place, name, axis, default) for axis in axes]
                             for place, name, default in ((3, "padding", 0), (4, "dilation", 1)))
        return sliding_windows(sizes, results, kernel, stride, padding, dilation)

    def _each(self, place: int, name: str, axis: int, default: int) -> int:
        given = self.call.argument(place, name)
        if given is None or given == []:
            return default
        if isinstance(given, int):
            return given
        return int(given[axis] if len(given) > 1 else given[0])


class _Windows(Relaxation):
    """All (N, C, windows)."""

    def __init__(self, pool: MaxPool, box: Box) -> None:
        self.shape, self.result = pool.call.inputs[0], pool.call.output
        table = pool.windows.to(box.lower.device)
        lower, upper = (_windowed(bound, table) for bound in box)
        safest, (tops, order) = lower.argmax(-1), upper.topk(min(2, upper.shape[-1]), dim=-1)
        top = order[..., 0]
        rival = tops[..., 1] if tops.shape[-1] > 1 else torch.full_like(tops[..., 0], -math.inf)
        least = lower.gather(-1, top[..., None])[..., 0]
        sure = least >= rival
        rise = (tops[..., 0] - rival) / (tops[..., 0] - least).clamp(min=torch.finfo(least.dtype).tiny)
        self._slope = torch.where(sure, 1.0, rise)
        self._offset = torch.where(sure, 0.0, rival - rise * least)
        windows = torch.arange(len(table), device=table.device)
        self._top, self._safest = table[windows, top], table[windows, safest]
        self._share: dict[Slopes, Tensor] = {"parallel": torch.ones_like(least), "adaptive": torch.zeros_like(least)}

    def share(self, slopes: Slopes) -> Tensor | None:
        return self._share[slopes]

    def backward(self, rows: Tensor, groups: Groups, shares: Tensor | None = None
                 ) -> tuple[list[Tensor], Tensor | None]:
        """Below, the input of the largest lower bound, and a share of the one of the largest upper bound."""
        images, flat = groups.images, groups.split(rows.flatten(2))
        share = groups.by_rule(self._share)[:, None] if shares is None else groups.split(shares)
        positive, negative = flat.clamp(min=0), flat.clamp(max=0)
        safest, top = (place[images][:, None].expand_as(flat) for place in (self._safest, self._top))
        back = torch.zeros((*flat.shape[:3], self.shape[1:].numel()), dtype=rows.dtype, device=rows.device)
        back = back.scatter_add(3, safest, positive * (1 - share))
        back = back.scatter_add(3, top, positive * share + negative * self._slope[images][:, None])
        return [back.reshape(len(rows), *self.shape)], (negative * self._offset[images][:, None]).sum((2, 3)).flatten()


def _adaptive(size: int, count: int) -> Tensor:
    """Windows of an adaptive pooling along one axis: (count, entries of one), −1 where there is none."""
    begin = [k * size // count for k in range(count)]
    end = [-(-(k + 1) * size // count) for k in range(count)]
    width = max(b - a for a, b in zip(begin, end, strict=True))
    return torch.tensor([[a + j if a + j < b else -1 for j in range(width)] for a, b in zip(begin, end, strict=True)])


def _windowed(values: Tensor, table: Tensor) -> Tensor:
    """(N, C, ...) as (N, C, windows, inputs of one); −∞ where there is none."""
    table = table.to(values.device)
    return torch.where(table >= 0, values.flatten(2)[..., table.clamp(min=0)], -math.inf)
