"""A random size and a random place (Xie, Wang, Zhang, Ren and Yuille 2018, arXiv 1711.01991)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.defenses.defense import Defense
from robustness_lib.inputs import check_real
from robustness_lib.straight_through import straight_through

__all__ = ["ResizePad"]


class ResizePad(Defense):
    """Each image is shrunk to its own random size, put at its own random place, and framed by its own edge pixels.

    smallest: the least size, as a share of the image's, over 0 and at most 1; 1 changes nothing. Sizes are whole
    pixels, from ⌈smallest·(H, W)⌉ to (H, W), one draw for both directions; all places are equally likely. The result
    has the input's size. The paper fills the frame with zeros, on a canvas larger than the image: that darkens borders
    which the model has never seen dark. Interpolation is bilinear, without averaging: far below 0.5 it skips pixels.
    Raises ValueError for another smallest, TypeError for what is no number.
    """

    differentiable = True
    stochastic = True

    def __init__(self, model: nn.Module, smallest: float = 0.8) -> None:
        super().__init__(model)
        smallest = check_real("smallest", smallest, "a share of the image's size")
        if not 0 < smallest <= 1:
            raise ValueError(f"smallest must be over 0 and at most 1, a share of the image's size; found {smallest}")
        self.smallest = smallest

    def _transform(self, x: Tensor) -> Tensor:
        images, _, height, width = x.shape
        size, *place = torch.rand((3, images), device=x.device)  # each its own, for each image
        tall, down = self._along(height, size, place[0], x)
        wide, across = self._along(width, size, place[1], x)
        grid = torch.stack([across[:, None, :].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)], 3)
        moved = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        moved = straight_through(moved.clamp(0, 1), moved)  # white may come out as 1.0000001, and keeps its gradient
        whole = (tall == height) & (wide == width)
        return torch.where(whole[:, None, None, None], x, moved)  # the grid's rounding grows with the image

    def _along(self, length: int, size: Tensor, place: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One direction: the drawn sizes in pixels (N,), and where each output pixel (N, length) looks in the input,
        −1 and 1 being the input's two edges. Outside of them `border` finds the edge pixel."""
        least = max(1, math.ceil(self.smallest * length - 1e-9))
        drawn = least + (size * (length - least + 1)).floor()
        start = (place * (length - drawn + 1)).floor()
        centers = torch.arange(length, dtype=x.dtype, device=x.device) + 0.5
        return drawn, 2 * (centers - start.to(x.dtype)[:, None]) / drawn.to(x.dtype)[:, None] - 1

    def extra_repr(self) -> str:
        return f"smallest={self.smallest}, {super().extra_repr()}"
