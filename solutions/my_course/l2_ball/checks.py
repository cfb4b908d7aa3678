"""The checks of the exercise on the L2 ball. Students get this file too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustness_lib.grading import Observation, need, step, wrong


def changes(variant: int, n: int = 8, size: int = 6) -> Tensor:
    """Changes of n images, (n, 3, size, size), from small to large; the first is none at all."""
    random = torch.Generator().manual_seed(variant)
    return torch.randn(n, 3, size, size, generator=random) * torch.linspace(0, 1, n).reshape(n, 1, 1, 1)


@step(points=2, shares=2)
def lengths(mine: Callable[[Tensor], Tensor], variant: int = 0, size: int = 6) -> Iterator[Observation]:
    """Whether lengths(change) gives the L2 length of each image's change."""
    change = changes(variant, size=size)
    found, right = mine(change), torch.stack([one.norm() for one in change])
    if not isinstance(found, Tensor) or found.shape != right.shape:
        yield wrong(f"returns {getattr(found, 'shape', type(found).__name__)}, and not one number for each of 8 images")
        return
    same = found.isclose(right, rtol=1e-4, atol=1e-6)
    yield need(same[1:].any(), "a length", "no length is right: is it the root of the sum of the squares?", share=1)
    yield need(same.all(), "of each image", "not for every image: sum over all but the first axis", share=1)


@step(points=3, shares=3)
def into_ball(
    mine: Callable[[Tensor, Tensor, float], Tensor], variant: int = 0, eps: float = 0.5
) -> Iterator[Observation]:
    """Whether into_ball(x_adv, x, eps) goes to the nearest point of the ball, and leaves alone what lies in it."""
    x = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(variant + 100)) / 2 + 0.25
    change = changes(variant) / 8
    found = mine(x + change, x, eps)
    if not isinstance(found, Tensor) or found.shape != x.shape:
        yield wrong(f"returns {getattr(found, 'shape', type(found).__name__)}, and not images like x")
        return
    if found.isnan().any():
        yield wrong("an image that was not changed becomes NaN: its change is divided by its length, 0")
        return
    length, after = change.flatten(1).norm(dim=1), (found - x).flatten(1).norm(dim=1)
    yield need((after <= eps * 1.001).all(), "inside the ball", f"leaves the ball: {after.max():.3f} is above {eps}")
    inside = length <= eps
    yield need((found - x - change)[inside].abs().max() < 1e-5, "what lies inside stays as it is",
               "changes images that lie in the ball already: scale by at most 1")  # fmt: skip
    nearest = change * (eps / length.clamp(min=eps)).reshape(-1, 1, 1, 1)
    yield need((found - x - nearest).abs().max() < 1e-4, "to the nearest point", "not to the nearest point of the ball")
