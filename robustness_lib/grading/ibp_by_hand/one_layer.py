"""Checks of `ibp_by_hand` on intervals through one layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from robustness_lib.grading.ibp_by_hand.intervals import first_alike, no_box, sound_and_tight
from robustness_lib.grading.ibp_by_hand.variants import FIRST, FORBIDDEN, IntervalsTask
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.steps import step

__all__ = ["through_linear", "through_rising"]


@step(points=3, shares=6, forbidden=FORBIDDEN)
def through_linear(mine: Callable[..., Any], task: IntervalsTask = FIRST, n: int = 7,
                   sizes: tuple[int, int] = (5, 4)) -> Iterator[Observation]:
    """A linear layer: against every corner of the box, each of them pushed through."""
    draw, (inputs, outputs) = task.generator(), sizes
    weight, bias = torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw)
    lower = torch.randn(n, inputs, generator=draw)
    upper = lower + 0.1 + torch.rand(n, inputs, generator=draw)
    given_to = weight.clone(), bias.clone(), lower.clone(), upper.clone()
    found = mine(*given_to)
    if (ending := no_box(found, (n, outputs))) is not None:
        yield ending
        return
    least, most = _of_corners(weight, bias, lower, upper)
    yield need(all(torch.equal(a, b) for a, b in zip(given_to, (weight, bias, lower, upper), strict=True)),
               "what it is given stays as it was", "changes the tensors it was given")
    mistake = _what_linear(found, weight, bias, lower, upper)
    yield from sound_and_tight(found, (least, most), mistake, "every corner of the box")


def _of_corners(weight: Tensor, bias: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and largest (N, out) over all corners of each box: for a linear layer, the true range."""
    pushed = []
    for ends in itertools.product((0, 1), repeat=lower.shape[1]):
        corner = torch.where(torch.tensor(ends).bool(), upper, lower).double()
        pushed.append(corner @ weight.double().T + bias.double())
    stacked = torch.stack(pushed)
    return stacked.amin(0), stacked.amax(0)


def _what_linear(found: Sequence[Tensor], weight: Tensor, bias: Tensor, lower: Tensor,
                 upper: Tensor) -> str | None:
    """Which mistake it is, if it is one of those that people make."""
    c, r = (lower + upper) / 2, (upper - lower) / 2
    centre, radius, ends = c @ weight.T + bias, r @ weight.abs().T, (lower @ weight.T + bias, upper @ weight.T + bias)
    return first_alike(found, (
        (ends, "the radius goes through |W|, not W. (The same comes out when the lower and the upper end are pushed "
               "through as they are: where a weight is negative, the two change places.)"),
        ((torch.minimum(*ends), torch.maximum(*ends)), "looks at two corners only: each output is least at a corner of "
         "its own, which |W| finds"),
        ((centre - radius - bias, centre + radius + bias), "adds the bias to the radius: it moves the centre alone"),
        ((centre - bias - radius, centre - bias + radius), "the bias is missing: it moves the centre"),
        ((centre - 2 * radius, centre + 2 * radius), "the radius is twice what it is: half of upper − lower"),
        ((centre - radius / 2, centre + radius / 2), "the radius is half of what it is"),
        ((centre, radius), "hands on the centre and the radius: return the lower and the upper end"),
        ((centre + radius, centre - radius), "hands on the upper end first: lower, then upper")))


@step(points=2, shares=6, forbidden=FORBIDDEN)
def through_rising(mine: Callable[..., Any], task: IntervalsTask = FIRST,
                   shape: tuple[int, ...] = (6, 5)) -> Iterator[Observation]:
    """ReLU and other functions that never fall: against points all over each interval."""
    lower = 2 * torch.randn(shape, generator=task.generator())
    upper = lower + 0.1 + 2 * torch.rand(shape, generator=task.generator(1))
    for function, name in ((torch.relu, "ReLU"), (torch.sigmoid, "the sigmoid"), (_cubed, "x³")):
        found = mine(function, lower.clone(), upper.clone())
        if (ending := no_box(found, shape)) is not None:
            yield ending
            return
        inside = function(torch.stack([lower + k / 50 * (upper - lower) for k in range(51)]).double())
        mistake = _what_rising(found, function, lower, upper, name)
        yield from sound_and_tight(found, (inside.amin(0), inside.amax(0)), mistake, f"{name} of every point",
                                   share=1.0)


def _cubed(x: Tensor) -> Tensor:
    return x**3


def _what_rising(found: Sequence[Tensor], function: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor,
                 name: str) -> str | None:
    c, r = (lower + upper) / 2, (upper - lower) / 2
    at, width = function(c), function(r)
    ends = function(lower), function(upper)
    said = f"applies {name} to the centre and the radius: it goes to the two ends, function(lower) and function(upper)"
    known: list[tuple[tuple[Tensor, Tensor], str]] = [((at - r, at + r), said), ((at - width, at + width), said),
                                                      (ends[::-1], "hands on the upper end first")]
    if function is not torch.relu:
        known.append(((lower.relu(), upper.relu()), f"it is ReLU's, also for {name}: use the function it is given"))
    return first_alike(found, tuple(known))
