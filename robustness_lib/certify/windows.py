"""Which entries of an image lie in each window that slides over it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["joined_windows", "sliding_windows"]


def sliding_windows(sizes: Sequence[int], results: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
                    padding: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Of a convolution or pooling, axis by axis: (windows, entries of one), places among the image's entries of one
    channel; −1 where a window reaches over the edge."""
    axes = []
    for size, count, length, step, pad, gap in zip(sizes, results, kernel, stride, padding, dilation, strict=True):
        places = torch.arange(count)[:, None] * step - pad + torch.arange(length) * gap
        axes.append(torch.where((places >= 0) & (places < size), places, -1))
    return joined_windows(axes, sizes)


def joined_windows(axes: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """From the windows along each axis, (count, entries of one) with −1 where there is none."""
    table = torch.zeros((1, 1), dtype=torch.int64)
    for places, size in zip(axes, sizes, strict=True):
        before, now = table[:, None, :, None], places[None, :, None, :]
        table = torch.where((before >= 0) & (now >= 0), before * size + now, -1).flatten(2, 3).flatten(0, 1)
    return table
