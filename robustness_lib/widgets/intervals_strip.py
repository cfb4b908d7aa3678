"""The intervals' printed twin: the logits' boxes of two networks at some ε, for paper and for slow phones."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from robustness_lib.attacks import PGD
from robustness_lib.certify import interval_bounds, interval_margins
from robustness_lib.querying.confirm_predictions import predict_logits
from robustness_lib.threat import ThreatModel
from robustness_lib.widgets._shown_figure import ShownFigure

__all__ = ["intervals_strip"]

STRIP_EPSILONS = (0.0, 0.2 / 255, 0.6 / 255, 2 / 255)
_LABEL, _OTHER, _DOT = "#2563a8", "#6b7280", "#d97706"
_COLOURS = {"proved": "#15803d", "open": "#6b7280", "broken": "#b91c1c", "wrong": "#b91c1c"}
_ROOM = 0.4  # beside the clean logits, in their range
_ROUNDING = 1e-6  # a margin within it proves nothing, as in the page


@dataclass(frozen=True)
class _Boxed:
    """What is known of an image at one ε. clean, lower, upper, attacked: (K,). verdict: as live_intervals.js has it."""

    clean: Tensor
    lower: Tensor
    upper: Tensor
    attacked: Tensor
    verdict: str


def intervals_strip(models: Mapping[str, nn.Module], x: Tensor, y: Tensor | int, classes: Sequence[str],
                    epsilons: Sequence[float] = STRIP_EPSILONS) -> Figure:
    """A figure 4.5 inches wide: what intervals allow the logits of some models at each of `epsilons`, a row each, with
    the worst point that PGD finds, and a caption.

    models: name -> images (N, C, H, W) in [0, 1] to logits (N, K). x: one image (C, H, W). y: its label. classes: names
    of the K classes. epsilons: L∞, in pixel units. Raises ValueError where there is no model or no ε, and what
    `interval_bounds` raises.
    """
    if not models or not epsilons:
        raise ValueError(f"intervals_strip needs models and epsilons; found {len(models)} and {len(epsilons)}")
    for name, model in models.items():
        outputs = predict_logits(model, x[None], size=1).shape[1]
        if outputs != len(classes):
            raise ValueError(f"{len(classes)} class names, and {name} has {outputs} logits")
    label = int(y)
    rows = [{name: _boxed(model, x, label, eps) for name, model in models.items()} for eps in epsilons]
    caption = textwrap.wrap(_caption(rows, epsilons), 78)
    below, tall = 0.15 * len(caption) + 0.12, 0.25 + 0.105 * len(classes)
    height = below + tall * len(epsilons) + 0.1
    figure = ShownFigure(figsize=(4.5, height), dpi=150)
    figure.set_layout_engine("none")  # the margins below are the figure's own
    grid = figure.add_gridspec(len(epsilons), len(models), left=0.2, right=0.99, top=1 - 0.3 / height,
                               bottom=below / height, wspace=0.06, hspace=0.25)
    figure.text(0.01, 0.04 / height, "\n".join(caption), fontsize=8, va="bottom")
    for number, (eps, boxes) in enumerate(zip(epsilons, rows, strict=True)):
        for column, (name, boxed) in enumerate(boxes.items()):
            axes = figure.add_subplot(grid[number, column])
            _draw(axes, boxed, label)
            axes.set_title(f"{name}: {boxed.verdict}" if number == 0 else boxed.verdict, fontsize=8, pad=2,
                           color=_COLOURS[boxed.verdict])
            if column == 0:
                words = [textwrap.shorten(name, 16, placeholder="…").replace("$", r"\$") for name in classes]
                axes.set_yticks(range(len(classes)), words, fontsize=6.5)
                axes.text(-0.46, 0.5, f"ε = {_levels(eps)}", transform=axes.transAxes, rotation=90, fontsize=8,
                          va="center")
    return figure


def _boxed(model: nn.Module, x: Tensor, label: int, eps: float) -> _Boxed:
    threat, image, y = ThreatModel("linf", eps), x[None], torch.tensor([label])
    lower, upper = interval_bounds(model, image, threat)
    margins = interval_margins(model, image, y, threat)
    clean = predict_logits(model, image, size=1)
    attacked = clean if eps == 0 else predict_logits(model, PGD(threat, steps=20).run(model, image, y).x_adv, size=1)
    verdict = "wrong" if clean.argmax() != label else "broken" if attacked.argmax() != label else \
        "proved" if bool(margins.amin() > _ROUNDING) else "open"
    return _Boxed(clean[0], lower[0].detach(), upper[0].detach(), attacked[0], verdict)


def _draw(axes: Axes, boxed: _Boxed, label: int) -> None:
    """On a scale that the clean logits fix; what goes on outside is cut."""
    clean = boxed.clean
    low, high = float(clean.min()), float(clean.max())
    room = _ROOM * (high - low) or 1.0
    low, high = low - room, high + room
    colours = [_LABEL if k == label else _OTHER for k in range(len(clean))]
    left, right = boxed.lower.clamp(low, high), boxed.upper.clamp(low, high)
    axes.barh(range(len(clean)), (right - left).tolist(), left=left.tolist(), height=0.6, color=colours)
    axes.scatter(boxed.attacked.tolist(), range(len(clean)), s=9, color=_DOT, zorder=3, linewidths=0)
    axes.axvline(float(left[label]), color=_LABEL, linewidth=0.8, linestyle="--")
    axes.set(xlim=(low, high), ylim=(len(clean) - 0.4, -0.6), xticks=[], yticks=[])


def _caption(rows: Sequence[Mapping[str, _Boxed]], epsilons: Sequence[float]) -> str:
    found = []
    for name in rows[0]:
        proved = [eps for eps, boxes in zip(epsilons, rows, strict=True) if boxes[name].verdict == "proved"]
        found.append(f"{name}: " + (f"proved up to ε = {_levels(max(proved))}" if proved else "never proved"))
    return (f"Of these ε, {'; '.join(found)}. Bars: where each logit can be, by intervals; each network has a scale "
            "of its own, and bars that leave it are cut. Dot: the worst point that PGD finds. Line: the least that the "
            "true class's logit can be.")


def _levels(eps: float) -> str:
    """In grey levels of 255."""
    return "0" if eps == 0 else f"{255 * eps:.3g}/255"
