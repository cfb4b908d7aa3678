"""Windows into a batch of images, at another place in each."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Windows", "as_images", "memory", "write"]


class Windows:
    """Windows into a batch of images, each as the places of its pixels in memory, in whichever order the images lie
    there (channels last or not): a window is read and written without touching the rest of its image.

    One window per image is a tensor (P, C, N), P pixels: with examples last, and not first, even a window of one
    pixel makes long rows, which are fast.
    """

    def __init__(self, images: Tensor) -> None:
        images = as_images(images)
        self.channels, self.height, self.width = images.shape[1:]
        self._strides, self._device = images.stride(), images.device
        self._first = self._steps(len(images), 0)
        self._known: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def at(self, draw: Tensor, height: int, width: int) -> Tensor:
        """One window per image, at a random place: (P, C, N). draw: (N,) random bits."""
        if (height, width) not in self._known:
            self._known[height, width] = self._places(height, width)
        corners, inside = self._known[height, width]
        return inside + (self._first + corners.take(draw % len(corners)))

    def _places(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """All corners that a window can have in an image, and its pixels (P, C, 1) relative to its corner."""
        corners = self._steps(self.height - height + 1, 2)[:, None] + self._steps(self.width - width + 1, 3)
        area = self._steps(height, 2)[:, None] + self._steps(width, 3)
        return corners.flatten(), (area.flatten()[:, None] + self._steps(self.channels, 1))[:, :, None]

    def _steps(self, count: int, dim: int) -> Tensor:
        return torch.arange(count, device=self._device) * self._strides[dim]


def as_images(x: Tensor) -> Tensor:
    """(N, ...) seen as (N, C, H, W)."""
    return x[:, None, None] if x.ndim == 2 else x[:, None] if x.ndim == 3 else x.flatten(1, -3)


def memory(images: Tensor) -> Tensor:
    """The pixels in the order that they lie in memory. images: dense, as all tensors here are."""
    return torch.as_strided(images, (images.numel(),), (1,))


def write(pixels: Tensor, places: Tensor, values: Tensor) -> None:
    """values (P, C, N) to these places of `memory`."""
    if torch.are_deterministic_algorithms_enabled():
        pixels[places] = values  # `put_` is refused then, though no place comes twice here
    else:
        pixels.put_(places, values)
