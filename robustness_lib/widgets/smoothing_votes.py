"""A certificate by voting that the reader runs in the page: votes, bound and attack are JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.certify.stopping import least_draws
from robustness_lib.inputs import check_real
from robustness_lib.widgets._in_the_page import layers, module, number_bytes, style
from robustness_lib.widgets._smoothed_plane import predicted, smoothed_boundary

__all__ = ["SmoothingVotes", "smoothing_votes"]

_PIXELS = 256  # on a side of the picture of the bare net's regions
_POINTS = 200


class SmoothingVotes(anywidget.AnyWidget):
    """The widget; made by `smoothing_votes`. What smoothing_votes.js reads from it:

    widths, weights: of the bare net; float32, little-endian, of each layer its weights and then its biases.
    regions: a bit for each of 256 × 256 pixels, row by row from above: the bare net's class. points: float32 (N, 2),
    little-endian, with their labels. boundaries: per σ the smoothed net's boundary as lines, each a list of points.
    choosing: how many votes choose the class. counting: how many may be counted, the reader's choice.
    """

    _esm = module("smoothing_numbers", "smoothing_picture", "smoothing_votes")
    _css = style("smoothing_votes")
    widths: Any = traitlets.List().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    regions = traitlets.Bytes().tag(sync=True)
    points = traitlets.Bytes().tag(sync=True)
    labels: Any = traitlets.List().tag(sync=True)
    classes: Any = traitlets.List().tag(sync=True)
    sigmas: Any = traitlets.List().tag(sync=True)
    boundaries: Any = traitlets.List().tag(sync=True)
    choosing = traitlets.Int(100).tag(sync=True)
    counting: Any = traitlets.List().tag(sync=True)
    alpha = traitlets.Float(0.001).tag(sync=True)
    start: Any = traitlets.List().tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)


def smoothing_votes(
    model: nn.Module | None = None, x: Tensor | None = None, y: Tensor | Sequence[int] | None = None, *,
    classes: Sequence[str] = data.moons.CLASSES, sigmas: Sequence[float] = (0.03, 0.06, 0.12), choosing: int = 100,
    counting: Sequence[int] = (100, 1_000, 10_000), alpha: float = 0.001, start: tuple[float, float] = (0.5, 0.65),
    seed: int = 0,
) -> SmoothingVotes:
    """Randomized smoothing (Cohen et al. 2019) on the plane, run by the reader's own browser: votes fall around a point
    that the reader picks, the lower bound and the certified circle grow, and PGD runs against the smoothed net.

    model: the bare net, nn.Sequential of Linear with ReLU in between, points (N, 2) to two logits; the shipped
    "moons-standard" if None. x, y: points (N, 2) in the unit square and their labels, 0 or 1, drawn for orientation;
    the first 200 test points of "moons" if None. classes: what the two are called. sigmas: the noise to choose from,
    in sides of the square, the middle one first. choosing: how many votes choose the class. counting: how many fresh
    ones count, likewise to choose from. alpha: how often the bound may be above the truth. start: where the point
    stands at first. seed: of the noise, 32 bits.

    Raises TypeError for a net that is no such MLP, and ValueError for points, labels, class names, σ, counts, α or a
    start that do not fit.
    """
    model = models.load_pretrained("moons-standard") if model is None else model
    if x is None or y is None:
        if (x is None) != (y is None):
            raise ValueError("smoothing_votes needs both points and labels, or neither")
        x, y, _ = data.load("moons", "test", n=_POINTS)
    linear = _linear_layers(model)
    points, labels = _check_points(x, y)
    _check_numbers(sigmas, choosing, counting, alpha, start)
    if len(classes) != 2:
        raise ValueError(f"smoothing_votes needs two class names; found {list(classes)}")
    centers = (np.arange(_PIXELS) + 0.5) / _PIXELS
    return SmoothingVotes(
        widths=[2, *(layer.out_features for layer in linear)],
        weights=b"".join(number_bytes(layer.weight) + number_bytes(_bias(layer)) for layer in linear),
        regions=np.packbits(predicted(model, centers, centers[::-1])).tobytes(),
        points=number_bytes(points), labels=labels, classes=list(classes), sigmas=[float(sigma) for sigma in sigmas],
        boundaries=[[line.round(4).tolist() for line in smoothed_boundary(model, sigma)] for sigma in sigmas],
        choosing=choosing, counting=list(counting), alpha=alpha, start=list(start), seed=seed,
    )


def _linear_layers(model: nn.Module) -> list[nn.Linear]:
    """Those of an MLP from the plane to two classes. Raises TypeError for any other net."""
    found = [layer for _, layer in layers(model)]
    linear = [layer for layer in found[::2] if isinstance(layer, nn.Linear)]
    bends = [layer for layer in found[1::2] if isinstance(layer, nn.ReLU)]
    alternate = len(linear) + len(bends) == len(found) and len(linear) == len(bends) + 1
    if not alternate or linear[0].in_features != 2 or linear[-1].out_features != 2:
        raise TypeError("the votes need an MLP of the plane: nn.Sequential of Linear with ReLU in between, from 2 "
                        f"coordinates to 2 classes; found {model}")
    return linear


def _check_points(x: Tensor, y: Tensor | Sequence[int]) -> tuple[Tensor, list[int]]:
    labels = [int(label) for label in y]
    if x.ndim != 2 or x.shape[1] != 2 or len(x) != len(labels) or not set(labels) <= {0, 1}:
        raise ValueError(f"the votes need points (N, 2) with N labels, each 0 or 1; found {tuple(x.shape)} and "
                         f"{len(labels)} labels among {sorted(set(labels))}")
    if len(x) and not 0 <= x.min() <= x.max() <= 1:
        raise ValueError("points must lie in the unit square; scale them")
    return x, labels


def _check_numbers(sigmas: Sequence[float], choosing: int, counting: Sequence[int], alpha: float,
                   start: tuple[float, float]) -> None:
    alpha = check_real("alpha", alpha, "how often the bound may be above the truth")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1; found {alpha}")
    if not sigmas or not all(0.01 <= sigma <= 1 for sigma in sigmas):
        raise ValueError(f"sigmas must lie between 0.01 and 1, in sides of the square; found {list(sigmas)}")
    least = least_draws(0.5, alpha)
    if choosing < 1 or not counting or min(counting) < least:
        raise ValueError(f"at least 1 vote must choose and {least:.0f} must count: with fewer nothing could be "
                         f"certified at alpha = {alpha}; found choosing={choosing}, counting={list(counting)}")
    if not all(0 <= value <= 1 for value in start):
        raise ValueError(f"start must lie in the unit square; found {start}")


def _bias(layer: nn.Linear) -> Tensor:
    return torch.zeros(layer.out_features) if layer.bias is None else layer.bias
