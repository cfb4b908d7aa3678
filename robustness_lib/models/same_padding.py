"""A convolution that pads as TensorFlow's SAME, which published weights were trained with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SameConvolution"]


class SameConvolution(nn.Conv2d):
    """The result is as large as the image divided by the stride, rounded up. What the image lacks for that is padded
    with zeros on both sides, and where it is an odd number of pixels, one more below and to the right."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self._lacking(size, axis) for axis, size in enumerate(x.shape[-2:]))
        return super().forward(functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))

    def _lacking(self, size: int, axis: int) -> int:
        stride, kernel = self.stride[axis], self.kernel_size[axis]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)
