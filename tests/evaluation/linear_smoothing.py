"""A linear model of two classes under noise: its smoothed radius is the distance to its plane, for every sigma."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustness_lib.certify import Certificates, RandomizedSmoothing

SIGMA = 0.25
SHAPE = (3, 2, 2)
NORMAL = torch.full((12,), 12**-0.5)  # of length 1, so that the logits' difference is twice the distance


class Plane(nn.Module):
    """Class 1 on the far side of the plane through the grey image, class 0 on the near one."""

    def __init__(self) -> None:
        super().__init__()
        self.normal = nn.Parameter(NORMAL.clone())

    def forward(self, x: Tensor) -> Tensor:
        beyond = (x.flatten(1) - 0.5) @ self.normal.to(x.dtype)
        return torch.stack((-beyond, beyond), 1)


def at_distances(distances: Tensor) -> Tensor:
    """Images (N, 3, 2, 2) at these signed distances (N,) from the plane, shifted along it, which changes nothing."""
    along = torch.linspace(-0.1, 0.1, 12)
    along = along - (along @ NORMAL) * NORMAL
    return (0.5 + distances[:, None] * NORMAL + along).reshape(-1, *SHAPE)


def problem(n: int = 40, nearest: float = 0.1, farthest: float = 0.6) -> tuple[Plane, Tensor, Tensor]:
    """The model, n images on both sides, and their labels, all right."""
    distances = torch.linspace(nearest, farthest, n) * (1 - 2 * (torch.arange(n) % 2))
    return Plane().eval(), at_distances(distances), (distances > 0).long()


def certified(model: nn.Module, x: Tensor, alpha: float = 0.001) -> tuple[RandomizedSmoothing, Certificates]:
    smoothing = RandomizedSmoothing(model, SIGMA)
    return smoothing, smoothing.certify(x, n=3000, alpha=alpha, progress=False)
