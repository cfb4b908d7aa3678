"""An attack that the reader runs in the page: weights and images go over, the attack itself is JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import traitlets
from torch import Tensor, nn

from robustness_lib.inputs import check_count
from robustness_lib.widgets._in_the_page import module, style
from robustness_lib.widgets._small_networks import OnSmallNetworks, small_networks

__all__ = ["LiveAttack", "live_attack"]


class LiveAttack(OnSmallNetworks):
    """The widget; made by `live_attack`. max_level: the slider's largest ε in grey levels; level: where it begins."""

    _esm = module("small_network", "pixels", "live_attack")
    _css = style("live_attack")
    max_level = traitlets.Int(16).tag(sync=True)
    level = traitlets.Int(0).tag(sync=True)


def live_attack(
    models: Mapping[str, nn.Module], images: Tensor, labels: Tensor | Sequence[int] | None = None,
    classes: Sequence[str] | None = None, max_level: int = 16, level: int = 0,
) -> LiveAttack:
    """FGSM and PGD in the L∞ ball, run by the reader's own browser on small trained networks.

    models: name -> nn.Sequential of Conv2d, ReLU, Flatten, Linear. images: float (N, C, H, W) in [0, 1], C = 1 or 3,
    rounded to 8 bits. labels: (N,); without them, what the first model says of the images. classes: names of the K
    classes. max_level: the slider's largest ε in grey levels. level: the ε that it shows first.
    Raises TypeError naming the layer that the JavaScript does not know, ValueError on images, labels or class names
    that do not fit.
    """
    if not models:
        raise ValueError("live_attack needs at least one model: {name: nn.Sequential(...)}")
    check_count("max_level", max_level)
    if max_level > 255:
        raise ValueError(f"max_level is the largest ε in grey levels, 1 to 255; found {max_level}")
    check_count("level", level, least=0)
    if level > max_level:
        raise ValueError(f"level is the ε that is shown first, 0 to max_level = {max_level}; found {level}")
    if labels is None:
        with torch.no_grad():
            labels = next(iter(models.values()))(images.clone()).argmax(1)  # it may work in place
    return LiveAttack(**small_networks(models, images, labels, classes), max_level=max_level, level=level)
