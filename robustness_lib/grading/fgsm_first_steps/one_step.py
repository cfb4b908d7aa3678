"""Checks of `fgsm_first_steps` on the step along the gradient's sign."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib.grading.fgsm_first_steps.gradient import half_misread
from robustness_lib.grading.fgsm_first_steps.variants import FIRST, FgsmFirstStepsTask
from robustness_lib.grading.given import fgsm_first_steps as given
from robustness_lib.grading.library_calls import ATTACKING
from robustness_lib.grading.linear_models import linear_gradient
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.returned_values import LEFT_FROZEN, in_box, not_images
from robustness_lib.grading.steps import step
from robustness_lib.grading.watched_model import modes_noted

__all__ = ["fgsm"]


@step(points=4, shares=10, forbidden=("grading/given/fgsm_first_steps/one_step.py", *ATTACKING))
def fgsm(mine: Callable[..., Tensor], task: FgsmFirstStepsTask = FIRST,
         shape: tuple[int, ...] = (16, 3, 8, 8), images: int = 60) -> Iterator[Observation]:
    """One step of ε along the gradient's sign, in the pixel box."""
    model, x, y = half_misread(task, shape, edges=True)
    eps, pixels = task.eps, x.clone()
    with modes_noted(model.train()) as modes:
        found = mine(model, pixels, y.clone(), eps)
    frozen = not all(weights.requires_grad for weights in model.parameters())
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    found = found.detach()
    yield need(torch.equal(pixels, x) and not frozen, "the images and the model's parameters stay as they were",
               LEFT_FROZEN if frozen else "changes the images it was given: x + ..., and not x += ...")
    yield need(modes and not any(modes), "the model is asked, and in eval mode",
               "the model is asked in train mode: given.input_gradient sees to it, and so should yours" if modes else
               "the model is never asked for a gradient")
    yield need(in_box(found), "pixels stay in [0, 1]",
               "pixels leave [0, 1]: clamp the result, (x + ...).clamp(0, 1), after adding")
    uphill = linear_gradient(model, x, y)
    room = (x > eps) & (x < 1 - eps) & (uphill.abs() > 1e-6)
    moved = (found - x).double()
    instead = _left_alone(moved) or _several_steps(found, model, x, y, eps)
    far = _how_far(found[room], moved[room].abs(), eps)
    yield need(far is None, "each pixel moves by ε, where it has room", instead or str(far), share=2)
    along = (moved.sign() == uphill.sign()) & room
    halves = [(int(along[half].sum()), int(room[half].sum())) for half in (slice(0, None, 2), slice(1, None, 2))]
    yield need(all(right == of for right, of in halves), "uphill, also on images that the model misreads",
               instead or _which_way(*halves), share=3)
    yield _loss_rises(mine, task, images)


def _left_alone(moved: Tensor) -> str | None:
    """In words, that every second image, which the model misreads, stays as it was, and the others do not."""
    if moved[1::2].any() or not moved[::2].any():
        return None
    return "images that the model misreads stay as they were: step them, too"


def _several_steps(found: Tensor, model: nn.Sequential, x: Tensor, y: Tensor, eps: float) -> str | None:
    """In words, that a walk of small steps was taken, where it ends elsewhere than one step."""
    for steps in (2, 3, 4, 5, 8, 10, 20):
        walked = x
        for _ in range(steps):
            walked = (walked + eps / steps * linear_gradient(model, walked, y).sign().float()).clamp(0, 1)
        if (found - walked).abs().max() < 1e-5:
            return f"takes {steps} steps of ε/{steps}: here it is one step of ε, along the gradient at the image itself"
    return None


def _how_far(ends: Tensor, lengths: Tensor, eps: float) -> str | None:
    """What is wrong with how far pixels move, and where they end; None where all move by ε."""
    if (lengths - eps).abs().max() < 1e-4 * eps + 1e-6:
        return None
    if (torch.minimum(ends.abs(), (ends - eps).abs()) < 1e-6).all():
        return "this is the change alone: return the image with it, x + ..."
    if not lengths.any():
        return "moves no pixel at all"
    free = lengths[(ends > 0) & (ends < 1)]
    if len(free) < 0.1 * len(lengths):
        return "nearly all pixels end at 0 or 1: ε is a number for pixels in [0, 1] already, so leave 255 out"
    ratio = free.median().item() / eps
    if free.std() > 0.02 * free.mean():
        return "pixels move by different lengths: take the gradient's sign, so that each moves by ε, and clamp last"
    if abs(ratio - 1) < 0.01:
        return "pixels move by nearly ε: add eps times the sign, and round nothing"
    if abs(ratio * 255 - 1) < 0.02:
        return f"pixels move by {ratio:.3g} ε: ε is a number for pixels in [0, 1] already, so leave 255 out"
    return (f"pixels move by {ratio:.3g} ε, and it should be ε: images stay pixels in [0, 1], and if a model "
            "wants them normalized, it does that inside")


def _which_way(read: tuple[int, int], misread: tuple[int, int]) -> str:
    """In words, from how many pixels of how many go uphill on images that are read rightly, and on the others."""
    right, of = read[0] + misread[0], read[1] + misread[1]
    if right == 0:
        return "every pixel goes the wrong way, so that your loss goes down instead of up: x plus ε times the sign"
    if read[0] == read[1] and misread[0] < 0.9 * misread[1]:
        return ("images that the model misreads are pushed towards their label: the loss is that of the label y, not "
                "of what the model answers")
    return (f"{of - right} of {of} pixels do not go uphill: each goes the way of the sign of its own gradient, taken "
            "at the image itself")


def _loss_rises(mine: Callable[..., Tensor], task: FgsmFirstStepsTask, images: int) -> Observation:
    """On a real model the loss rises by as much as FGSM can make it."""
    (x, y), model = task.data(), task.model().eval()
    x, y = x[:images], y[:images]
    moved = mine(model, x.clone(), y.clone(), task.eps).detach().float()
    farthest = given.fgsm(model, x, y, task.eps)
    with torch.no_grad():
        before, after, best = (F.cross_entropy(model(at), y).item() for at in (x, moved, farthest))
    words = f"{len(x)} images of the test set on {task.name}: the mean loss goes from {before:.2f} to {after:.2f}"
    legal = in_box(moved) and (moved - x).abs().max() <= task.eps * 1.001
    wanted = ("and one step of ε, along the gradient at the image itself, takes it to" if legal and after > best else
              "and should go to")
    return need(legal and abs(after - best) < 0.02 * (best - before), words,
                f"{words}, {wanted} {best:.2f}, within ε and [0, 1]", share=2)
