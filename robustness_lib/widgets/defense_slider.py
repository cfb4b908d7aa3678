"""A slider over the strength of a defense, and a switch that tells the attacker about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ipywidgets import VBox
from torch import Tensor

from robustness_lib.png import png_bytes
from robustness_lib.statistics import Accuracy
from robustness_lib.widgets._pages import bar, pages_under_switch, png_url

__all__ = ["Defended", "defense_slider"]

_UNAWARE, _ADAPTIVE = "The attacker does not know", "Tell the attacker"


@dataclass(frozen=True)
class Defended:
    """A defense at one setting, measured on the same images three times.

    setting: what the handle says. picture: (C, H, W) in [0, 1], C = 1 or 3, an image as the model gets to see it.
    clean, unaware, adaptive: accuracy without an attack, under one that ignores the defense, under one that knows it.
    """

    setting: str
    picture: Tensor
    clean: Accuracy
    unaware: Accuracy
    adaptive: Accuracy


def defense_slider(points: Sequence[Defended], *, defense: str, name: str) -> VBox:
    """What is left of the accuracy at each setting, under a slider; a switch says whether the attacker knows.

    Moves in JupyterLab and in the built page. defense: its name in the captions. name: what the slider runs over.
    Raises ValueError without points, and for pictures of another shape.
    """
    if not points:
        raise ValueError("defense_slider was given no points: one Defended for each setting")
    for point in points:
        if point.picture.ndim != 3 or point.picture.shape[0] not in (1, 3):
            raise ValueError(f"a picture must be (C, H, W) with C = 1 or 3; found {tuple(point.picture.shape)} at "
                             f"{name} {point.setting}")
    pages = {switch: [_page(point, told, defense, name) for point in points]
             for switch, told in ((_UNAWARE, False), (_ADAPTIVE, True))}
    return pages_under_switch(pages, [point.setting for point in points], name)


def _page(point: Defended, told: bool, defense: str, name: str) -> str:
    attacked = point.adaptive if told else point.unaware
    who = "The attacker knows the defense" if told else "The attacker does not know that there is a defense"
    caption = f"{defense}, {name} {point.setting}. {who}: {_in_words(attacked)} still read rightly."
    pixels = (point.picture.detach().clamp(0, 1) * 255).round().byte().cpu().expand(3, -1, -1).permute(1, 2, 0)
    picture = png_url(png_bytes(pixels.contiguous().numpy()))
    bars = bar("no attack", point.clean.value, "other") + bar(
        "attacked", attacked.value, "wrong defense-fall" if told else "true",
        f"; --from:{100 * point.unaware.value:.1f}%" if told else "")
    return (f'<div class="epsilon-frame"><p class="epsilon-caption">{escape(caption)}</p>'
            f'<ul class="epsilon-bars">{bars}</ul>'
            f'<img class="epsilon-picture defense-picture dark-light" src="{picture}" '
            f'alt="An image as the model sees it, {escape(name)} {escape(point.setting)}"></div>')


def _in_words(accuracy: Accuracy) -> str:
    low, high = accuracy.interval
    return (f"{100 * accuracy.value:.0f} % ({100 * low:.0f}–{100 * high:.0f}) of {accuracy.n:,} images are")
