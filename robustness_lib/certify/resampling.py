"""The rule of images made larger or smaller by weights that are negative in places: bicubic, and antialiased."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from robustness_lib.certify.operation import Affine, Box

__all__: list[str] = []


class Resampled(Affine):
    """Each channel R·x·Cᵀ, with a matrix for its rows and one for its columns."""

    names = ("upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa")

    @cached_property
    def _matrices(self) -> tuple[Tensor, Tensor]:
        """R and C. The weights of each sum to 1, so that an image in which only one row differs from 0 becomes the
        weights of that row, in whatever column."""
        height, width = self.call.inputs[0][1:]
        row, column = (torch.eye(size, dtype=torch.float64)[:, None] for size in (height, width))
        rows = self(row[..., None].expand(-1, -1, -1, width))[:, 0, :, 0]
        columns = self(column[:, :, None].expand(-1, -1, height, -1))[:, 0, 0]
        return rows.t(), columns.t()

    def _spread(self, values: Tensor, power: int) -> Tensor:
        """By the absolute values of the weights, to some power."""
        rows, columns = (matrix.to(values).abs() ** power for matrix in self._matrices)
        return rows @ values @ columns.t()

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box.around(self(box.centre), self._spread(box.radius, 1))

    def ball(self, radius: Tensor) -> Tensor | None:
        return self._spread(radius.square(), 2).sqrt()
