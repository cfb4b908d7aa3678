"""Intervals under L2, through the first layer that has weights."""

from __future__ import annotations

import torch

from robustness_lib.certify.input_region import InputRegion
from robustness_lib.certify.operation import Affine, Box

__all__ = ["BallRadii"]


class BallRadii:
    """How far an L2 ball around the images lets each value go, as long as no two entries of a value share a pixel, and
    through the first layer that has weights."""

    def __init__(self, region: InputRegion) -> None:
        self.radii = {0: torch.full_like(region.x, region.threat.eps)}
        self.centres = {0: region.x}

    def passed(self, number: int, operation: object, inputs: tuple[int, ...], box: Box) -> Box:
        """The box of a value, made smaller where the ball says so."""
        (first, *more) = inputs
        if more or not isinstance(operation, Affine) or first not in self.radii:
            return box
        radius, centre = self.radii[first], self.centres[first]
        if operation.separate:
            ends = operation.interval(Box.around(centre, radius))
            self.radii[number], self.centres[number] = ends.radius, operation(centre)
            return box
        reach = operation.ball(radius)
        return box if reach is None else box.within(Box.around(operation(centre), reach))
