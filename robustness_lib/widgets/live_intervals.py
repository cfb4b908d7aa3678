"""Interval bounds that the reader moves: weights and images go over, the intervals themselves are JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import traitlets
from torch import Tensor, nn

from robustness_lib.inputs import check_count
from robustness_lib.widgets._in_the_page import module, style
from robustness_lib.widgets._small_networks import OnSmallNetworks, small_networks

__all__ = ["LiveIntervals", "live_intervals"]


class LiveIntervals(OnSmallNetworks):
    """The widget; made by `live_intervals`. max_tenths: the slider's largest ε, in tenths of a grey level of 255."""

    _esm = module("small_network", "intervals", "pixels", "live_intervals")
    _css = style("live_intervals")
    max_tenths = traitlets.Int(40).tag(sync=True)


def live_intervals(models: Mapping[str, nn.Module], images: Tensor, labels: Tensor | Sequence[int],
                   classes: Sequence[str] | None = None, max_tenths: int = 40) -> LiveIntervals:
    """What interval bounds allow the logits of two small networks when each pixel moves by ε at most, side by side,
    computed by the reader's own browser, with the worst point that 20 steps of PGD find there.

    models: two, name -> nn.Sequential of Conv2d, ReLU, Flatten, Linear. images: float (N, C, H, W) in [0, 1], C = 1 or
    3, rounded to 8 bits. labels: (N,). classes: names of the K classes. max_tenths: the slider's largest ε, in tenths
    of a grey level of 255.
    Raises TypeError naming the layer that the JavaScript does not know, ValueError for other than two models, and on
    images, labels or class names that do not fit.
    """
    if len(models) != 2:
        raise ValueError(f"live_intervals compares two models; found {len(models)}: {', '.join(models)}")
    check_count("max_tenths", max_tenths)
    return LiveIntervals(**small_networks(models, images, labels, classes), max_tenths=max_tenths)
