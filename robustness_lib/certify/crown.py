"""CROWN: linear bounds, from the logits backward to the images (Zhang et al. 2018, arXiv 1811.00866; with the chord's
slope below as well, Wong and Kolter 2018, arXiv 1711.00851)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robustness_lib.certify.alpha_crown import optimized_least
from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.interval_bounds import bounded, in_batches
from robustness_lib.certify.margins import improve_margins, plain_margins
from robustness_lib.certify.operation import Box
from robustness_lib.certify.relaxation import SLOPES, Slopes
from robustness_lib.certify.traced_network import TracedNetwork
from robustness_lib.inputs import check_count
from robustness_lib.querying.frozen import Classifier
from robustness_lib.threat import ThreatModel

__all__ = ["Intermediate", "crown_bounds", "crown_margins"]

Intermediate = Literal["crown", "interval"]


def crown_bounds(model: Classifier | TracedNetwork, x: Tensor, threat: ThreatModel, *,
                 slopes: Slopes | Literal["best"] = "best", intermediate: Intermediate = "crown", alpha_steps: int = 0,
                 pixel_box: bool = True) -> Box:
    """Bounds of the logits over all images that the threat model allows: (lower, upper), (N, K) each.

    slopes: of the lines below bends. "parallel": of a ReLU, its chord's; "adaptive": 0 or 1, whichever leaves less
    between the lines; "best": of each bound, the better of both. intermediate: where the bounds inside the network come
    from: "crown", going back to the images from every bend, for the neurons that may be on either side of it; or
    "interval" (then it is CROWN-IBP), much cheaper and looser. Both are cut by intervals. alpha_steps: of α-CROWN (Xu
    et al. 2021, arXiv 2011.13824), which moves the slopes of the last way back to the best for each image and bound;
    0 for none. Never worse than without.

    The rest, and what is raised: see `interval_bounds`.
    """
    rules = _rules(slopes, intermediate, alpha_steps)
    with bounded(model, x, threat, pixel_box) as (network, region):

        def bounds(enclosure: Enclosure) -> Box:
            n, classes = enclosure.logits.lower.shape
            rows = torch.eye(classes, dtype=network.dtype, device=network.device).repeat(n, 1)
            images = torch.arange(n, device=network.device).repeat_interleave(classes)
            lower, upper = (sign * optimized_least(enclosure, enclosure.last, sign * rows, images, rules, alpha_steps)
                            for sign in (1, -1))
            return Box(lower.reshape(n, classes), upper.reshape(n, classes)).within(enclosure.logits)

        return Box(*in_batches(lambda part: bounds(_enclosure(network, part, rules, intermediate)), network, region))


def crown_margins(model: Classifier | TracedNetwork, x: Tensor, y: Tensor, threat: ThreatModel, *,
                  slopes: Slopes | Literal["best"] = "best", intermediate: Intermediate = "crown", alpha_steps: int = 0,
                  pixel_box: bool = True) -> Tensor:
    """Lower bounds of the label's margin over each other class, z_y − z_j, for all images that the threat model allows:
    (N, K), ∞ at the label. See `crown_bounds` for the settings and `interval_margins` for the rest."""
    rules = _rules(slopes, intermediate, alpha_steps)
    with bounded(model, x, threat, pixel_box, y) as (network, region):

        def margins(enclosure: Enclosure, labels: Tensor) -> list[Tensor]:
            found = plain_margins(enclosure, labels)
            improve_margins(found, enclosure, labels, rules, alpha_steps)
            return [found]

        (found,) = in_batches(lambda part, labels: margins(_enclosure(network, part, rules, intermediate), labels),
                              network, region, y.to(network.device))
    return found


def _rules(slopes: str, intermediate: str, alpha_steps: int) -> tuple[Slopes, ...]:
    check_count("alpha_steps", alpha_steps, least=0)
    if intermediate not in ("crown", "interval"):
        raise ValueError(f'intermediate must be "crown" or "interval"; found {intermediate!r}')
    if slopes == "best":
        return SLOPES
    if slopes not in SLOPES:
        raise ValueError(f'slopes must be "parallel", "adaptive" or "best"; found {slopes!r}')
    return (slopes,)


def _enclosure(network: TracedNetwork, region: InputRegion, rules: tuple[Slopes, ...], intermediate: str) -> Enclosure:
    enclosure = Enclosure.by_intervals(network, region)
    return enclosure.tightened(rules) if intermediate == "crown" else enclosure
