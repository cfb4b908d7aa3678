"""Interval bound propagation: boxes through a network, layer by layer (Gowal et al. 2018, arXiv 1810.12715)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from robustness_lib.certify.enclosure import Enclosure
from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.margins import plain_margins
from robustness_lib.certify.operation import Box
from robustness_lib.certify.traced_network import TracedNetwork, trace
from robustness_lib.inputs import check_images, check_label_range, check_labels
from robustness_lib.precision import full_precision
from robustness_lib.querying.batch_size import cut
from robustness_lib.querying.frozen import Classifier
from robustness_lib.threat import ThreatModel

__all__ = ["bounded", "in_batches", "interval_bounds", "interval_margins"]


def interval_bounds(model: Classifier | TracedNetwork, x: Tensor, threat: ThreatModel, *,
                    pixel_box: bool = True) -> Box:
    """Bounds of the logits over all images that the threat model allows: (lower, upper), (N, K) each.

    model: images (N, ...) in [0, 1] to logits (N, K), of operations that have a rule (`operation.known_operations`);
    held in eval mode, and left as it was. Give what `trace(model, x)` returns to have it traced once and for all.
    x: (N, ...) float32 or float64 in [0, 1]; the bounds are computed in the model's type. pixel_box: False leaves the
    pixel box [0, 1] aside, as some published figures do, and bounds the whole ball.

    Bounds hold for real numbers: rounding is left aside. Raises what `trace` raises, `UnknownOperation` above all;
    ValueError and TypeError for images that cannot be used.
    """
    with bounded(model, x, threat, pixel_box) as (network, region):
        return Box(*in_batches(lambda part: Enclosure.by_intervals(network, part, for_ends=True).logits, network,
                               region))


def interval_margins(model: Classifier | TracedNetwork, x: Tensor, y: Tensor, threat: ThreatModel, *,
                     pixel_box: bool = True) -> Tensor:
    """Lower bounds of the label's margin over each other class, z_y − z_j, for all images that the threat model allows:
    (N, K), ∞ at the label. Where all are positive, no such image gets another answer than y.

    The last linear layers are folded into the difference: lower(z_y) − upper(z_j) would let the same neuron help both.
    y: (N,) int64 labels. The rest, and what is raised: see `interval_bounds`; ValueError also for labels out of range.
    """
    with bounded(model, x, threat, pixel_box, y) as (network, region):
        (found,) = in_batches(lambda part, labels: [plain_margins(
            Enclosure.by_intervals(network, part, for_ends=True), labels)], network, region, y.to(network.device))
    return found


@contextmanager
def bounded(model: Classifier | TracedNetwork, x: Tensor, threat: ThreatModel, pixel_box: bool,
            y: Tensor | None = None) -> Iterator[tuple[TracedNetwork, InputRegion]]:
    """The network and where its images may be, checked, for work in full precision without a graph."""
    if not isinstance(threat, ThreatModel):
        raise TypeError(f'threat must be a ThreatModel, such as ThreatModel("linf", 8/255); found {threat!r}')
    network = trace(model, x)
    x = check_images(x).detach()
    if y is not None:
        check_labels(y, x)
        check_label_range(y, network.classes)
    with torch.inference_mode(False), torch.no_grad(), full_precision():
        yield network, InputRegion(network.take(x), threat, pixel_box)


def in_batches(work: Callable[..., Sequence[Tensor]], network: TracedNetwork, region: InputRegion,
               *columns: Tensor) -> list[Tensor]:
    """What work returns for the region and columns (N, ...), made of so many images at once as the widest value of the
    network allows."""
    places = cut(len(region.x), max(1, _BATCH_VALUES // network.widest))
    parts = [work(region.at(place), *(column[place] for column in columns)) for place in places]
    return [torch.cat(found) for found in zip(*parts, strict=True)]


_BATCH_VALUES = 650_000  # in fewer, what each call costs weighs more than what the caches save
