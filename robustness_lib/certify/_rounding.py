"""What rounding may have done to a bound, and does to the model's own answers."""

from __future__ import annotations

import torch
from torch import Tensor

from robustness_lib.certify.enclosure import Enclosure

__all__ = ["OWN_ROUNDING", "ROUNDING", "rounding_tolerance"]

# Of the size of the sums behind a margin: 17 times the rounding of one operation in float32, 9,000 times in float64.
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-12}

# What the model's own answers may be off, apart from the bound, which has no rounding to speak of in float64.
OWN_ROUNDING = {kind: share / 2 for kind, share in ROUNDING.items()}


def rounding_tolerance(enclosure: Enclosure, share: float) -> Tensor:
    """From where on a margin around each image is surely positive: (N,). share: of the size of what it is made of.

    What large terms cancel to says nothing of their rounding: two scores near 10,000 that differ by .001 may be the
    other way round. So the tolerance is a share of the sum of all terms' absolute values, with the weights' own, from
    the pixels to the logits, each multiplied by how steep the curves on its way are. Going back from the logits makes
    no larger ones.
    """
    sizes = [enclosure.boxes[0].size]
    for step in enclosure.network.steps:
        boxes = [enclosure.boxes[k] for k in step.inputs]
        sizes.append(step.operation.size([sizes[k] for k in step.inputs], boxes, share))
    return share * sizes[-1].amax(1).nan_to_num(nan=torch.inf, posinf=torch.inf)
