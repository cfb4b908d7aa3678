"""The vote's printed twin: the plane after none, a few and all of the votes, for paper and for slow phones."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from torch import nn

from robustness_lib import counter_random, data, models
from robustness_lib.certify.stopping import certified_radius
from robustness_lib.inputs import check_count
from robustness_lib.statistics import clopper_pearson_lower
from robustness_lib.widgets._shown_figure import ShownFigure
from robustness_lib.widgets._smoothed_plane import predicted, smoothed_boundary

__all__ = ["smoothing_strip"]

_COLOURS = ("#2563a8", "#d97706")
_REGIONS = ListedColormap(["#c9dcf2", "#fbe0bd"])
_MARKERS = ("o", "s")


def smoothing_strip(
    model: nn.Module | None = None, *, classes: Sequence[str] = data.moons.CLASSES, sigma: float = 0.06,
    point: tuple[float, float] = (0.5, 0.65), votes: Sequence[int] = (0, 20, 200, 2_000), choosing: int = 100,
    alpha: float = 0.001, seed: int = 0,
) -> Figure:
    """A figure 4.5 inches wide: a point of the plane, the votes around it, and the circle that they show, at each
    number of `votes`, with a caption in words. Arguments as in `smoothing_votes`.

    The last number is the one that was fixed beforehand: its circle is a certificate and is drawn solid; those of the
    numbers before it are how it grew, and dashed. Raises ValueError unless `votes` are whole numbers that increase.
    """
    for many in votes:
        check_count("votes", many, least=0)
    if not votes or list(votes) != sorted(set(votes)):
        raise ValueError(f"votes must increase from picture to picture; found {list(votes)}")
    model = models.load_pretrained("moons-standard") if model is None else model
    places, answers = _vote(model, point, sigma, choosing + votes[-1], seed)
    chosen = int(2 * answers[:choosing].sum() > choosing)
    places, agree = places[choosing:], answers[choosing:] == chosen
    radii = [_radius(agree[:many], alpha, sigma) for many in votes]
    bound = clopper_pearson_lower(int(agree.sum()), votes[-1], alpha) if votes[-1] else 0.0
    caption = textwrap.wrap(_caption(classes[chosen], int(agree.sum()), votes[-1], bound, radii[-1], sigma), 78)
    figure, pictures = _pictures(len(votes), caption)
    for axes, many, radius in zip(pictures, votes, radii, strict=True):
        _draw_plane(axes, model, sigma)
        _draw_votes(axes, places[:many], np.where(agree[:many], chosen, 1 - chosen))
        if radius is not None:
            for colour, width in (("white", 2.6), ("black", 1.3)):
                axes.add_patch(Circle(point, radius, fill=False, linewidth=width, edgecolor=colour,
                                      linestyle="solid" if many == votes[-1] else "dashed"))
        axes.plot(*point, "o", color="black", mec="white", markersize=5)
        axes.set_title(f"{many:,} votes: " + ("no circle" if radius is None else f"R = {_below(radius)}"), fontsize=9)
    return figure


def _vote(model: nn.Module, point: tuple[float, float], sigma: float, many: int,
          seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where votes fall, (many, 2), and what the bare net says there, (many,)."""
    noise = counter_random.normal((2,), seed=seed, index=torch.arange(many))
    places = torch.tensor(point) + sigma * noise
    with torch.no_grad():
        answers = model(places.to(next(model.parameters()))).argmax(1)
    return places.numpy(), answers.cpu().numpy()


def _radius(agree: NDArray[Any], alpha: float, sigma: float) -> float | None:
    """What these votes, (many,) bool, would certify."""
    if not len(agree):
        return None
    radius = float(certified_radius(np.array([agree.sum()]), len(agree), alpha, sigma)[0])
    return radius if radius > 0 else None


def _pictures(many: int, caption: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure of two columns above a caption, given line by line."""
    rows = -(-many // 2)
    below = 0.16 * len(caption) + 0.1
    height = 2.42 * rows + below
    figure = ShownFigure(figsize=(4.5, height), dpi=150)
    figure.set_layout_engine("none")  # the margins below are the figure's own
    grid = figure.add_gridspec(rows, 2, left=0.01, right=0.99, top=1 - 0.25 / height, bottom=below / height,
                               wspace=0.06, hspace=0.16)
    figure.text(0.01, 0.05 / height, "\n".join(caption), fontsize=8, va="bottom")
    return figure, [figure.add_subplot(grid[number // 2, number % 2]) for number in range(many)]


def _draw_plane(axes: Axes, model: nn.Module, sigma: float) -> None:
    ticks = np.linspace(0, 1, 200)
    axes.imshow(predicted(model, ticks, ticks), origin="lower", extent=(0, 1, 0, 1), cmap=_REGIONS, vmin=0, vmax=1)
    for line in smoothed_boundary(model, sigma):
        axes.plot(*line.T, color="black", linewidth=1.0)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])


def _draw_votes(axes: Axes, places: NDArray[Any], answers: NDArray[Any]) -> None:
    for label, (colour, marker) in enumerate(zip(_COLOURS, _MARKERS, strict=True)):
        across, up = places[answers == label].T
        axes.scatter(across, up, s=4, c=colour, marker=marker, linewidths=0, alpha=0.8)


def _caption(name: str, agree: int, votes: int, bound: float, radius: float | None, sigma: float) -> str:
    counted = f"Of {votes:,} votes, a number fixed beforehand, {agree:,} are for “{name}” (σ\u00a0=\u00a0{sigma:g})."
    line = "Black line: where the smoothed net changes its mind."
    if radius is None:
        return f"{counted} The lower bound, {_below(bound)}, is not above ½: the smoothed net abstains. {line}"
    return (f"{counted} The lower bound on its share is {_below(bound, 4)}, so the certified radius is {sigma:g} × "
            f"Φ⁻¹({_below(bound, 4)}) = {_below(radius)}. Dashed: how it grew; only the last is a certificate. {line}")


def _below(value: float, digits: int = 3) -> str:
    """Rounded down: a bound that is rounded up would promise too much."""
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"
