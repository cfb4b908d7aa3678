"""The net of the plane: small enough to be drawn whole."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from robustness_lib.models.architectures import architecture

__all__ = ["mlp"]


@architecture
def mlp(widths: Sequence[int] = (2, 64, 64, 2)) -> nn.Sequential:
    """Linear layers of these widths with ReLU in between: points (N, widths[0]) to logits (N, widths[-1]).

    Raises ValueError for fewer than two widths.
    """
    if len(widths) < 2:
        raise ValueError(f"mlp needs at least an input and an output width; found {list(widths)}")
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
