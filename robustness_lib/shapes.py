"""Ways to see a batch: as one row per example, and as one number per example that multiplies it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["entries", "per_example", "rows"]


def rows(images: Tensor, like: Tensor) -> Tensor:
    """(N, ...) as (N, d): one row per example, its entries in the memory order of `like` (channels last or not), so
    that nothing is copied where `images` has that order too. For sums and extremes, where order does not matter;
    tensors that are combined entry by entry need the same `like`."""
    if images.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        return images.permute(0, 2, 3, 1).flatten(1)
    return images.flatten(1)


def per_example(value: Tensor, images: Tensor) -> Tensor:
    """(N,) shaped so that it multiplies (N, ...) example by example."""
    return value.reshape(-1, *[1] * (images.ndim - 1))


def entries(values: Tensor, after: int = 1) -> Tensor:
    """All axes after the first few as one, which has length 1 where there is none: (N, ...) as (N, d)."""
    return values.flatten(after) if values.ndim > after else values.unsqueeze(after)
