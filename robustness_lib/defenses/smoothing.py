"""Each pixel from its neighbours: the mean, the median, a Gaussian (Xu, Evans and Qi 2018, arXiv 1704.01155)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.defenses.defense import Defense
from robustness_lib.inputs import check_count, check_real
from robustness_lib.straight_through import straight_through

__all__ = ["GaussianSmoothing", "MeanSmoothing", "MedianSmoothing"]


class _Weighted(Defense):
    """The same weights down and across."""

    differentiable = True
    stochastic = False
    kernel: Tensor

    def __init__(self, model: nn.Module, kernel: Tensor) -> None:
        super().__init__(model)
        self.size = len(kernel)
        self.register_buffer("kernel", kernel, persistent=False)  # a buffer, so that .to(device) moves it

    def _transform(self, x: Tensor) -> Tensor:
        smooth, kernel = _reflected(x, self.size), self.kernel.to(x.dtype)
        for dim in (2, 3):
            # One shifted copy per weight: cuDNN's convolution would multiply with ten bits (TF32).
            smooth = torch.stack([weight * smooth.narrow(dim, shift, x.shape[dim])
                                  for shift, weight in enumerate(kernel.unbind())]).sum(0)
        # White may come out as 1.0000001. That is no reason for the clamp to stop white's gradient.
        return straight_through(smooth.clamp(0, 1), smooth)

    def extra_repr(self) -> str:
        return f"size={self.size}, {super().extra_repr()}"


class MeanSmoothing(_Weighted):
    """The mean of size × size pixels; edges reflected (about the last pixel, which is not repeated).

    size: odd. Raises ValueError for another, and (on use) for an image too small to be reflected, min(H, W) ≤ size / 2.
    """

    def __init__(self, model: nn.Module, size: int = 3) -> None:
        _check_size(size)
        super().__init__(model, torch.full((size,), 1 / size))


class GaussianSmoothing(_Weighted):
    """Gaussian weights, cut off and made to sum to one; edges reflected (about the last pixel, which is not repeated).

    sigma: the standard deviation, in pixels' widths. size: odd; None means 2·⌈3σ⌉ + 1. Raises ValueError for others,
    and (on use) for an image too small to be reflected, min(H, W) ≤ size / 2; TypeError for what is no number.
    """

    def __init__(self, model: nn.Module, sigma: float, size: int | None = None) -> None:
        sigma = check_real("sigma", sigma, "a standard deviation in pixels' widths")
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be positive and finite, in pixels' widths; found {sigma}")
        size = 2 * math.ceil(3 * sigma) + 1 if size is None else size
        _check_size(size)
        offset = torch.arange(size, dtype=torch.float64) - size // 2
        super().__init__(model, (-0.5 * (offset / sigma) ** 2).softmax(0).float())
        self.sigma = sigma

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, {super().extra_repr()}"


class MedianSmoothing(Defense):
    """The median of size × size pixels; edges reflected (about the last pixel, which is not repeated). The gradient
    goes to the one pixel in the middle of the order.

    size: odd. Raises ValueError for another, and (on use) for an image too small to be reflected, min(H, W) ≤ size / 2.
    Costs size² copies of the images.
    """

    differentiable = True
    stochastic = False

    def __init__(self, model: nn.Module, size: int = 3) -> None:
        super().__init__(model)
        _check_size(size)
        self.size = size

    def _transform(self, x: Tensor) -> Tensor:
        windows = _reflected(x, self.size).unfold(2, self.size, 1).unfold(3, self.size, 1)
        return windows.flatten(4).median(4).values

    def extra_repr(self) -> str:
        return f"size={self.size}, {super().extra_repr()}"


def _check_size(size: int) -> None:
    check_count("size", size)
    if size % 2 == 0:
        raise ValueError(f"size must be odd, so that a window has a middle; found {size}")


def _reflected(x: Tensor, size: int) -> Tensor:
    edge = size // 2
    if min(x.shape[2:]) <= edge:
        raise ValueError(f"size {size} reflects {edge} pixels at each edge, and needs an image of more than that; "
                         f"found {x.shape[2]} × {x.shape[3]}. Take a smaller size (or sigma)")
    return F.pad(x, (edge, edge, edge, edge), mode="reflect")
