"""Checks of `pgd_and_restarts` on ball and box: the way back to them, and a random start in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustness_lib.grading.library_calls import ATTACKING
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.pgd_and_restarts.variants import FIRST, PgdAndRestartsTask
from robustness_lib.grading.random_starts import not_uniform
from robustness_lib.grading.returned_values import in_box, not_images, within
from robustness_lib.grading.steps import step

__all__ = ["project", "random_start"]


@step(points=2, shares=5, forbidden=("grading/given", *ATTACKING))
def project(mine: Callable[..., Tensor], task: PgdAndRestartsTask = FIRST,
            shape: tuple[int, ...] = (20, 3, 5, 5)) -> Iterator[Observation]:
    """The nearest point within ε of the image and in the pixel box: every pixel is brought back by itself."""
    eps, draw = task.eps, task.generator()
    x = torch.rand(shape, generator=draw)
    x[:, :, 0], x[:, :, 1] = 0.0, 1.0
    points = x + 3 * eps * (2 * torch.rand(shape, generator=draw) - 1)
    points[:2] = x[:2] + 0.5 * eps * (2 * torch.rand((2, *shape[1:]), generator=draw) - 1)
    inputs = points.clone(), x.clone()
    found = mine(*inputs, eps)
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    nearest = torch.minimum(torch.maximum(points, low), high)
    yield need(torch.equal(inputs[0], points) and torch.equal(inputs[1], x), "what it is given stays as it was",
               "changes the tensors it was given: return new ones")
    yield need(within(found, x, eps), "within ε of the image", _not_in_the_ball(found, points, x, eps))
    yield need(in_box(found), "in the pixel box", "pixels leave [0, 1]: clamp to the box as well")
    yield need((found - nearest).abs().max() < 1e-6, "and the nearest such point, pixel by pixel",
               _not_nearest(found, points, x, eps), share=2)


def _not_in_the_ball(found: Tensor, points: Tensor, x: Tensor, eps: float) -> str:
    if (found - points.clamp(0, 1)).abs().max() < 1e-6 or (found - points).abs().max() < 1e-6:
        return ("points stay farther than ε from the image: the ball lies around x, and not around the points that are "
                "to be brought back")
    return f"a pixel is {((found - x).abs().max() / eps).item():.2f} ε from the image: at least x − ε, at most x + ε"


def _not_nearest(found: Tensor, points: Tensor, x: Tensor, eps: float) -> str:
    change = points - x
    longest = change.abs().amax((1, 2, 3), keepdim=True)
    length = change.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    for other, words in (
            (x + change * (eps / longest).clamp(max=1), "shortens the whole change until its largest pixel fits: in L∞ "
             "each pixel is cut off by itself"),
            (x + change * (eps / length).clamp(max=1), "this is the projection for L2: in L∞ each pixel is cut off by "
             "itself"),
            (x + eps * change.sign(), "moves every pixel to the edge of the ball: what lies inside stays where it is"),
            (x, "returns the images: a point comes back to the nearest allowed one, not to the centre")):
        if (found - other.clamp(0, 1)).abs().max() < 1e-5:
            return words
    return "this is not the nearest allowed point: what lies inside stays, what sticks out comes back to the edge"


@step(points=2, shares=6, forbidden=("grading/given/pgd_and_restarts/first_points.py", *ATTACKING))
def random_start(mine: Callable[..., Tensor], task: PgdAndRestartsTask = FIRST,
                 shape: tuple[int, ...] = (24, 3, 8, 8)) -> Iterator[Observation]:
    """A start that is uniform in the ball, in the pixel box, for each image another, and another one each time."""
    eps, x = task.eps, torch.rand(shape, generator=task.generator())
    before = x.clone()
    start = mine(x, eps, task.generator(1))
    if (ending := not_images(start, x)) is not None:
        yield ending
        return
    yield need(torch.equal(x, before), "the images themselves stay as they were",
               "changes the images it was given: x + ..., and not x += ...")
    yield need(within(start, x, eps), "within ε of the image",
               f"a pixel starts {((start - x).abs().max() / eps).item():.2f} ε from its image: draw from −ε to ε")
    edges = torch.cat([mine(x.round(), eps, task.generator(2)), start])
    yield need(in_box(edges), "in the pixel box", "starts outside [0, 1]: clamp after adding the noise")
    shares = (mine(torch.full(shape, 0.5), eps, task.generator(3)).double() - 0.5).flatten(1) / eps
    yield need(not_uniform(shares) is None, "uniform from −ε to ε", str(not_uniform(shares)))
    grey = torch.full(shape, 0.5)
    first, second = (mine(grey, eps, task.generator(number)) for number in (4, 5))
    alike = all(torch.equal(first[0], one) for one in first[1:])
    yield need(not alike, "another one for each image", "all images get the same noise: draw it in the shape of x")
    draw = task.generator(6)
    again = torch.equal(first, second) or torch.equal(mine(grey, eps, draw), mine(grey, eps, draw))
    yield need(not again, "and another one each time", "the same start again: draw from the generator that you are "
               "given, and set no seed, else every restart repeats the first")
