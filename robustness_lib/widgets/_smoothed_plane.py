"""Where a two-class net of the plane, and the same net smoothed by noise, change their minds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

__all__ = ["predicted", "smoothed_boundary", "smoothed_share"]

_REACH = 5  # standard deviations around the square: beyond lies one draw in a million
_FINENESS = 12  # grid lines per standard deviation


def predicted(model: nn.Module, across: NDArray[Any], up: NDArray[Any]) -> NDArray[Any]:
    """The class of each point of a grid: bool (len(up), len(across)). Raises ValueError for other than two classes."""
    grid = torch.from_numpy(np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2))
    like = next(model.parameters())
    with torch.no_grad():
        logits = model(grid.to(like.device, like.dtype))
    if logits.shape[1:] != (2,):
        raise ValueError(f"the plane is drawn for two classes: logits (N, 2); found {tuple(logits.shape)}")
    answer: NDArray[Any] = (logits[:, 1] > logits[:, 0]).cpu().numpy()
    return answer.reshape(len(up), len(across))


def smoothed_share(model: nn.Module, sigma: float, ticks: NDArray[Any]) -> NDArray[Any]:
    """The share of votes for class 1 at each point of the grid (ticks, ticks), row by row from below.

    It is the net's answer, 0 or 1, weighed with the normal density of the noise, on a grid twelve times as fine as σ.
    """
    reach = _REACH * sigma
    n = round((ticks[-1] - ticks[0] + 2 * reach) * _FINENESS / sigma)
    fine = np.linspace(ticks[0] - reach, ticks[-1] + reach, n)
    kernel = np.exp(-0.5 * ((ticks[:, None] - fine) / sigma) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    share: NDArray[Any] = kernel @ predicted(model, fine, fine) @ kernel.T
    return share


def smoothed_boundary(model: nn.Module, sigma: float, resolution: int = 101) -> list[NDArray[Any]]:
    """The lines in the unit square on which the smoothed net's two classes have half of the votes each: (N, 2) each."""
    ticks = np.linspace(0, 1, resolution)
    contours = Figure().subplots().contour(ticks, ticks, smoothed_share(model, sigma, ticks), levels=[0.5])
    return [np.asarray(line) for line in contours.allsegs[0]]
