"""Figures of the book: the plane, perturbations at a fixed scale, accuracies with their intervals, the sandwich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray
from torch import Tensor

from robustness_lib.querying.frozen import Classifier
from robustness_lib.statistics import Accuracy
from robustness_lib.threat import ThreatModel

__all__ = ["accuracy_curve", "ball", "columns", "describe_perturbation", "image", "loss_surface", "path",
           "perturbation", "plane", "sandwich", "triple", "use_style"]

# Two hues that colour-blind readers tell apart, and that print in grey as dark and light.
BLUE, ORANGE, GREY, RED = "#2563a8", "#d97706", "#6b7280", "#b91c1c"
_REGIONS = ListedColormap(["#c9dcf2", "#fbe0bd"])



def use_style() -> None:
    """The book's look: figures 4.5 inches wide, 9 point, readable on a phone."""
    plt.rcParams.update({
        "figure.figsize": (4.5, 3.0), "figure.dpi": 120, "savefig.bbox": "tight", "font.size": 9,
        "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
        "axes.grid": False, "figure.constrained_layout.use": True,
    })


def columns(n: int, height: float = 2.2, width: float = 4.5) -> tuple[Figure, list[Axes]]:
    """A figure with n axes side by side."""
    figure, axes = plt.subplots(1, n, figsize=(width, height), squeeze=False)
    return figure, list(axes[0])


def image(axes: Axes, x: Tensor, title: str = "") -> None:
    """An image (C, H, W) in [0, 1], enlarged without smoothing: what the model sees, pixel by pixel."""
    pixels = x.detach().cpu().permute(1, 2, 0).numpy()
    _show(axes, pixels, title)


def perturbation(axes: Axes, delta: Tensor, eps: float, title: str | None = None) -> None:
    """A change (C, H, W) on a fixed scale of ±ε: mid-grey is no change, whatever this image's own range."""
    pixels = (delta.detach().cpu() / (2 * eps) + 0.5).clamp(0, 1).permute(1, 2, 0).numpy() if eps > 0 else \
        np.full((*delta.shape[1:], delta.shape[0]), 0.5)
    _show(axes, pixels, describe_perturbation(eps) if title is None else title)


def _show(axes: Axes, pixels: NDArray[Any], title: str) -> None:
    """Pixels (H, W, C) in [0, 1]; a single channel in grey."""
    shown = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)


def describe_perturbation(eps: float) -> str:
    """In words: the magnification of a change that is drawn from mid-grey to full scale at ±ε."""
    return f"change, ×{0.5 / eps:.0f}" if eps > 0 else "no change"


def triple(x: Tensor, x_adv: Tensor, eps: float, labels: tuple[str, str], *, fontsize: float = 9) -> Figure:
    """Clean image, change, adversarial image (each (C, H, W)), with what the model says of the first and the last."""
    figure, (left, middle, right) = columns(3, height=1.9)
    image(left, x, labels[0])
    perturbation(middle, x_adv - x, eps)
    image(right, x_adv, labels[1])
    for axes in (left, middle, right):
        axes.title.set_fontsize(fontsize)
    return figure


def plane(axes: Axes, model: Classifier, x: Tensor | None = None, y: Tensor | None = None, *,
          resolution: int = 200) -> None:
    """The unit square as a two-class model of points (N, 2) divides it, and labelled points on top."""
    ticks = torch.linspace(0, 1, resolution)
    grid = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        predicted = model(grid).argmax(1).reshape(resolution, resolution).T.cpu().numpy()
    axes.imshow(predicted, origin="lower", extent=(0, 1, 0, 1), cmap=_REGIONS, vmin=0, vmax=1, aspect="equal")
    if x is not None and y is not None:
        for label, colour, marker in ((0, BLUE, "o"), (1, ORANGE, "s")):
            of = (y == label).cpu()
            across, up = x.cpu()[of].T.numpy()
            axes.scatter(across, up, s=8, c=colour, marker=marker, linewidths=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])


def ball(axes: Axes, threat: ThreatModel, centre: Tensor, **style: Any) -> None:
    """The outline of the threat model's ball around a point (2,): a square or a circle."""
    cx, cy = centre.tolist()
    options: dict[str, Any] = {"fill": False, "linewidth": 1.2, "edgecolor": "black"} | style
    if threat.norm == "linf":
        axes.add_patch(Rectangle((cx - threat.eps, cy - threat.eps), 2 * threat.eps, 2 * threat.eps, **options))
    else:
        axes.add_patch(Circle((cx, cy), threat.eps, **options))


def path(axes: Axes, points: Tensor, **style: Any) -> None:
    """Iterates (steps, 2) joined by a line; the first is open, the last is filled."""
    options: dict[str, Any] = {"color": "black", "linewidth": 1.0, "marker": ".", "markersize": 4} | style
    across, up = points.cpu().T.numpy()
    axes.plot(across, up, **options)
    axes.plot(across[0], up[0], "o", mfc="white", mec=options["color"], markersize=5)
    axes.plot(across[-1], up[-1], "o", color=options["color"], markersize=5)


def accuracy_curve(axes: Axes, epsilons: Sequence[float], accuracies: Sequence[Accuracy], label: str,
                   colour: str = BLUE, marker: str = "o", unit: float = 255) -> None:
    """Accuracy against ε with its 95 % band. unit=255 labels ε in grey levels; unit=1 in pixel units."""
    at = [eps * unit for eps in epsilons]
    low, high = zip(*(a.interval for a in accuracies), strict=True)
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(at, [a.value for a in accuracies], color=colour, marker=marker, markersize=3.5, label=label)
    axes.set(ylim=(0, 1.02), xlabel="ε in grey levels of 255" if unit == 255 else "ε", ylabel="accuracy")


def loss_surface(axes: Axes, loss: Callable[[Tensor], Tensor], x: Tensor, directions: tuple[Tensor, Tensor],
                 eps: float, *, resolution: int = 31, levels: int = 12) -> None:
    """Contours of a per-example loss over x + a·d₁ + b·d₂, for a, b in [−ε, ε], clipped to the pixel box.

    x and both directions: (C, H, W); a direction's entries lie in [−1, 1]. loss: images (N, C, H, W) to (N,).
    """
    ticks = torch.linspace(-eps, eps, resolution)
    a, b = torch.meshgrid(ticks, ticks, indexing="xy")
    first, second = directions
    points = x + a.reshape(-1, 1, 1, 1) * first + b.reshape(-1, 1, 1, 1) * second
    with torch.no_grad():
        values = torch.cat([loss(part) for part in torch.split(points.clamp(0, 1), 256)])
    values = values.reshape(resolution, resolution)
    contours = axes.contourf(a * 255, b * 255, values.numpy(), levels=levels, cmap="viridis")
    axes.plot(0, 0, "+", color="white", markersize=9)
    axes.set(aspect="equal", xlabel="along the gradient's sign", ylabel="along a random sign")
    axes.figure.colorbar(contours, ax=axes, shrink=0.7)


_NEAR = 0.25  # marks that are nearer than this, as shares of the bar, would write over each other
_APART = {"left": 3, "center": 0, "right": -3}  # points


def sandwich(axes: Axes, attacked: Accuracy, certified: Accuracy | None = None, title: str = "",
             clean: Accuracy | None = None) -> None:
    """certified ≤ true ≤ attacked, as one bar: green is proved, red is broken, and the truth lies in between."""
    low = certified.value if certified is not None else 0.0
    top = attacked.value
    axes.barh(0, low, color="#15803d", height=0.5)
    axes.barh(0, top - low, left=low, color="#d1d5db", height=0.5, hatch="//", edgecolor="white", linewidth=0)
    axes.barh(0, 1 - top, left=top, color="#f3b4b4", height=0.5)
    for value, text, side in _sandwich_marks(attacked, certified, clean):
        axes.plot([value, value], [-0.32, 0.32], color="black", linewidth=1)
        axes.annotate(f"{text}\n{100 * value:.1f} %", (value, 0.4), (_APART[side], 0), textcoords="offset points",
                      ha=side, va="bottom", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.4, 0.9), yticks=[], xlabel="share of images")
    axes.set_title(title, loc="left")
    axes.spines["left"].set_visible(False)


def _sandwich_marks(attacked: Accuracy, certified: Accuracy | None,
                    clean: Accuracy | None) -> Iterator[tuple[float, str, str]]:
    """Value, word and alignment of each mark; the words of two that are near stand on either side of them."""
    low, top = certified.value if certified is not None else None, attacked.value
    near = low is not None and 0 < top - low < _NEAR
    if low != top:
        yield top, "not broken", "left" if near else "center"
    if low is not None:
        yield low, "proved" if low < top else "proved = not broken", "right" if near else "center"
    if clean is not None and abs(clean.value - top) > 0.12:
        yield clean.value, "clean", "center"
