"""Checks of `fgsm_first_steps` on the gradient by the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib.grading.fgsm_first_steps.variants import FIRST, FgsmFirstStepsTask
from robustness_lib.grading.library_calls import ATTACKING
from robustness_lib.grading.linear_models import linear_gradient, linear_scores
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import LEFT_FROZEN, not_images
from robustness_lib.grading.steps import step
from robustness_lib.grading.watched_model import modes_noted

__all__ = ["half_misread", "input_gradient"]


@step(points=3, shares=6, forbidden=("grading/given", *ATTACKING))
def input_gradient(mine: Callable[..., Tensor], task: FgsmFirstStepsTask = FIRST,
                   shape: tuple[int, ...] = (12, 3, 6, 6)) -> Iterator[Observation]:
    """The gradient of the loss by the pixels: upwards, of the label's loss, in eval mode, and nothing else touched."""
    model, x, y = half_misread(task, shape)
    gathered = {name: torch.full_like(weights, 0.5) for name, weights in model.named_parameters()}
    for name, weights in model.named_parameters():
        weights.grad = gathered[name].clone()
    images = x.clone()
    with modes_noted(model.train()) as modes:
        try:
            found = mine(model, images, y.clone())
        except NotImplementedError:  # one of the RuntimeErrors
            raise
        except RuntimeError as error:
            yield wrong(_asked_in_vain(error))
            return
    if found is None:
        yield wrong("returns None: only the tensor that you called requires_grad_() on gets a .grad, and only if the "
                    "model is then given that very tensor. torch.autograd.grad(loss, pixels)[0] returns it directly")
        return
    if (ending := not_images(found, x)) is not None:
        yield ending
        return
    yield need(modes and not any(modes), "the model is in eval mode while it is asked",
               "the model is asked in train mode, where dropout is at work: call model.eval() before" if modes else
               "the model is never asked")
    mistake = _which_gradient(found, model, x, y)
    yield need(mistake is None, "the gradient of each image's own loss, pointing uphill", str(mistake), share=3)
    yield _parameters_left_alone(model, gathered)
    yield need(torch.equal(images, x) and not images.requires_grad, "the images themselves stay as they were",
               "changes the tensor it was given: begin with x.clone().requires_grad_()")


def _parameters_left_alone(model: nn.Module, gathered: dict[str, Tensor]) -> Observation:
    """Whether each parameter has the gradient that had been gathered in it, and may still be trained."""
    grads = [weights.grad for weights in model.parameters()]
    kept = all(grad is not None and torch.equal(grad, before)
               for grad, before in zip(grads, gathered.values(), strict=True))
    wiped = all(grad is None or not grad.any() for grad in grads)
    frozen = not all(weights.requires_grad for weights in model.parameters())
    return need(kept and not frozen, "the model's parameters and their gradients stay as they were",
                LEFT_FROZEN if frozen else
                "wipes the gradients that somebody had gathered in the model's parameters: torch.autograd.grad(loss, "
                "pixels) touches none, so that there is nothing to clean" if wiped else
                "adds to the gradients of the model's parameters: backward() writes into every one of them. "
                "torch.autograd.grad(loss, pixels) asks for the pixels' alone")


def half_misread(task: FgsmFirstStepsTask, shape: tuple[int, ...],
                 edges: bool = False) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A linear model, images, and labels of which the model reads every second one wrongly. edges: whether a row of
    each image is black and another one white, where the pixel box binds."""
    draw = task.generator()
    model, x = linear_scores(shape[1:], 5, draw), torch.rand(shape, generator=draw)
    if edges:
        x[:, :, 0], x[:, :, 1] = 0.0, 1.0
    with torch.no_grad():
        read = model.eval()(x).argmax(1)
    return model, x, torch.where(torch.arange(len(x)) % 2 == 0, read, (read + 1) % 5)


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two gradients have the same direction, image by image: a sum and a mean of losses are alike."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    return bool(((F.cosine_similarity(a, b) > 0.9999) | ~(a.any(1) | b.any(1))).all())


def _which_gradient(found: Tensor, model: nn.Sequential, x: Tensor, y: Tensor) -> str | None:
    """What is wrong with a gradient, in words; None for the right one."""
    right = linear_gradient(model, x, y)
    if _alike(found, right):
        return None
    pixels = x.clone().requires_grad_()
    scores = model.eval()(pixels)
    read = scores.argmax(1)
    twice = torch.autograd.grad(F.cross_entropy(scores.softmax(1), y, reduction="sum"), pixels, retain_graph=True)[0]
    label = torch.autograd.grad(scores.gather(1, y[:, None]).sum(), pixels)[0]
    for other, words in (
            (-right, "this gradient points downhill, so that your loss goes down instead of up: no minus sign"),
            (linear_gradient(model, x, read), "this is the gradient for what the model answers, and the loss is that "
             "of the label: F.cross_entropy(model(x), y)"),
            (twice, "the softmax was taken twice: F.cross_entropy wants the model's scores as they are"),
            (label, "this is the gradient of the label's score: take that of the loss, F.cross_entropy(model(x), y)"),
            (-label, "this is the gradient of the label's score: take that of the loss, F.cross_entropy(model(x), y)"),
            (right * (read == y).reshape(-1, *[1] * (x.dim() - 1)), "the gradient is zero on images that the model "
             "misreads: they have one, too. Sum the loss over all images"),
            (right.sign(), "this is the gradient's sign already: that comes in step 3, and here it is the gradient")):
        if _alike(found, other):
            return words
    if not found.any():
        return "this gradient is zero everywhere, and the right one is not"
    return "this is not the gradient of F.cross_entropy(model(x), y) by the pixels, with the model in eval mode"


def _asked_in_vain(error: RuntimeError) -> str:
    """What autograd meant, for those who meet it for the first time."""
    words = str(error)
    for part, meaning in (
            ("does not require grad", "autograd was not told to follow the pixels: x.clone().requires_grad_(), before "
             "the model is asked, and no detach(), .data or no_grad() on the way to the loss"),
            ("not have been used", "the loss does not come from the tensor that you ask for: give the model the one "
             "with requires_grad_()"),
            ("scalar outputs", "a loss for each image has no single gradient: add them up, F.cross_entropy(..., "
             "reduction=\"sum\")")):
        if part in words:
            return f"your code raises “{words}”: {meaning}"
    return f"your code raises RuntimeError: {words}"
