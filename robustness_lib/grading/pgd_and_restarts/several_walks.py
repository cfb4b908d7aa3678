"""Checks of `pgd_and_restarts` on walks from several starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from robustness_lib.grading.given import pgd_and_restarts as given
from robustness_lib.grading.library_calls import ATTACKING
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.pgd_and_restarts.one_walk import in_ball_and_box
from robustness_lib.grading.pgd_and_restarts.points_seen import PointsSeen
from robustness_lib.grading.pgd_and_restarts.slopes import FlatFloor, ForkedSlope
from robustness_lib.grading.pgd_and_restarts.variants import FIRST, GIVEN, PgdAndRestartsTask
from robustness_lib.grading.random_starts import not_uniform
from robustness_lib.grading.returned_values import in_box, misread, not_images, within
from robustness_lib.grading.steps import step
from robustness_lib.losses import margin_loss

__all__ = ["flat_floor", "pgd_with_restarts"]


@step(points=4, shares=10, forbidden=(f"{GIVEN}starts.py", *ATTACKING))
def pgd_with_restarts(mine: Callable[..., Tensor], task: PgdAndRestartsTask = FIRST, n: int = 40,
                      restarts: int = 3) -> Iterator[Observation]:
    """Restarts: as many walks as are wanted, from new starts, of those still standing; what is broken stays broken."""
    steps, eps = 2, task.eps
    model = ForkedSlope(eps / 0.45)
    x, y = model.images(n, task.generator())
    asked, images = PointsSeen(model, x), x.clone()
    found = mine(asked, images, y.clone(), eps, steps, restarts, task.generator(1))
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    found = found.detach().float()
    yield in_ball_and_box(asked, found, x, eps)
    paths = asked.paths()
    errs = [misread(model, torch.stack(path), y[i].expand(len(path))) if path else torch.zeros(0, dtype=torch.bool)
            for i, path in enumerate(paths)]
    ever = torch.tensor([bool(one.any()) for one in errs])
    yield _as_many_walks(paths, x, eps, ever, restarts)
    yield _random_starts(paths, x, eps)
    lost = int((ever & ~misread(model, found, y)).sum())
    yield need(not lost and ever.any(), "an image that was broken once stays broken",
               f"{lost} of {n} images were broken in an earlier walk and come back unbroken: keep the best of all walks"
               if lost else "no walk breaks an image, and half of all starts lead to a mistake: call pgd from each",
               share=3)
    after = [len(one) - 1 - int(one.int().argmax()) for one in errs if one.any()]
    again = sum(late > steps for late in after)
    yield need(not again, "and is left alone from then on",
               f"{again} images go on with new walks although they are broken: restart only those still standing",
               share=1)
    yield _best_of_all(paths, found, model, y, ever)


def _as_many_walks(paths: list[list[Tensor]], x: Tensor, eps: float, ever: Tensor, restarts: int) -> Observation:
    """Images that never break show how many walks there were: a start lies inside the ball with nearly all its pixels,
    and after the first step hardly any point does."""
    starts = [len(_starts(path, image, eps)) for path, image in zip(paths, x, strict=True)]
    standing = [count for count, broken in zip(starts, ever.tolist(), strict=True) if not broken]
    if not standing or set(standing) == {restarts}:
        return need(True, f"{restarts} walks, each from a start of its own", "", share=2)
    if max(standing) == 0:
        return need(False, "", "no walk begins inside the ball: draw a new start for each from the generator", share=2)
    if max(standing) <= 1 < restarts:
        return need(False, "", "all walks are one and the same, or there is only one: draw a new start for each from "
                    "the generator", share=2)
    off = next(count for count in standing if count != restarts)
    return need(False, "", f"{off} walks of an image that stands to the end, and there should be {restarts}, from a "
                "start of its own each", share=2)


def _starts(path: list[Tensor], image: Tensor, eps: float) -> list[Tensor]:
    """Those points of one image's walks that are starts."""
    return [point for point in path if ((point - image).abs() < 0.999 * eps).float().mean() > 0.85]


def _random_starts(paths: list[list[Tensor]], x: Tensor, eps: float) -> Observation:
    """Whether the first walks, and the later ones, begin anywhere in the ball: here the pixel box is far away."""
    first = [(path[0] - image) / eps for path, image in zip(paths, x, strict=True) if path]
    later = [(point - image) / eps for path, image in zip(paths, x, strict=True)
             for point in _starts(path[1:], image, eps)]
    mistake = (_spread(first) or (_spread(later) if later else None)) if first else (
        "no walk leaves the image: begin at a random point")
    return need(mistake is None, "the starts lie anywhere in the ball", str(mistake))


def _spread(starts: list[Tensor]) -> str | None:
    """What is wrong with starts, as shares of ε, each in the pixels where nothing binds but the ball; None where they
    are uniform."""
    if len(starts) > 1 and all(start.shape == starts[0].shape and torch.allclose(start, starts[0], atol=1e-3)
                               for start in starts):
        return "all images get the same start: draw it in the shape of x"
    if (far := torch.cat([start.flatten() for start in starts]).abs().median().item()) < 0.1:
        return f"the walks begin {far:.2g} ε from the image, and should begin anywhere in the ball, as in step 2"
    return not_uniform(start.flatten().double() for start in starts)


def _best_of_all(paths: list[list[Tensor]], found: Tensor, model: nn.Module, y: Tensor, ever: Tensor) -> Observation:
    """Also of the images that stand, the best point of all walks comes back."""
    with torch.no_grad():
        value = margin_loss(model(found), y)
        most = torch.stack([margin_loss(model(torch.stack(path)), label.expand(len(path))).max() if path else value[i]
                            for i, (path, label) in enumerate(zip(paths, y, strict=True))])
    worse = int(((value < most - 1e-4) & ~ever).sum())
    return need(worse == 0, "of those that stand, the best point of all walks comes back",
                f"on {worse} images that stand, another walk had a point with a larger margin_loss")


@step(points=2, shares=2, forbidden=(f"{GIVEN}starts.py", *ATTACKING))
def flat_floor(mine: Callable[..., Tensor], task: PgdAndRestartsTask = FIRST) -> Iterator[Observation]:
    """Where the gradient is zero at the image, a walk from the image stands still, and one from elsewhere does not."""
    x, y = task.data()
    model, x = FlatFloor(task.model()).eval(), (16 * x).round() / 16
    eps = task.eps
    read = ~misread(model, x, y)
    x, y = x[read], y[read]
    still = misread(model, given.pgd(model, x, y, eps, 10, x), y).double().mean().item()
    asked = PointsSeen(model, x)
    found = mine(asked, x.clone(), y.clone(), eps, 10, 2, task.generator(3))
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    found = found.detach().float()
    share = misread(model, found, y).double().mean().item()
    legal = within(found, x, eps) and in_box(found)
    words = f"flat at every image: from there PGD breaks {100 * still:.0f} % of {len(x)}, yours {100 * share:.0f} %"
    yield need(legal and share > still + 0.2, words,
               f"{words}. The gradient is zero at the image itself: begin each walk, also the first, at a random point"
               if legal else "the points that come back lie outside ball or box")
    first = [((path[0] - image) / eps)[(image >= eps) & (image <= 1 - eps)]
             for path, image in zip(asked.paths(), x, strict=True) if path]
    yield need(first and _spread(first) is None, "the first walk begins anywhere in the ball",
               str(_spread(first)) if first else "every walk stands still at the image, where the gradient is zero")
