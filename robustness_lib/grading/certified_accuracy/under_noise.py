"""Checks of `certified_accuracy` on noisy images: training on them, and votes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robustness_lib.grading.certified_accuracy.noise import alike, noise_of_its_own, right_noise
from robustness_lib.grading.certified_accuracy.variants import FIRST, FORBIDDEN, CertifiedAccuracyTask
from robustness_lib.grading.linear_models import linear_layer
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import matching, not_a_tensor
from robustness_lib.grading.steps import step
from robustness_lib.grading.watched_model import WatchedModel

__all__ = ["count_votes", "noise_loss"]


def _levels(n: int, shape: tuple[int, ...]) -> Tensor:
    """n plain images (n, C, H, W), from black to white: under any noise one sees which is which."""
    return torch.linspace(0, 1, n).reshape(-1, 1, 1, 1).repeat(1, *shape)


class _InFloat32(nn.Module):
    """For those who add noise in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def _some_net(shape: tuple[int, ...], classes: int, generator: torch.Generator) -> tuple[WatchedModel, nn.Linear]:
    """A linear net with random weights, whose answer to an image changes with the noise on it; and its layer."""
    weights = torch.randn(classes, math.prod(shape), generator=generator)
    layer = linear_layer((weights - weights.mean(1, keepdim=True)) / 10, torch.zeros(classes))
    return WatchedModel(nn.Sequential(_InFloat32(), nn.Flatten(), layer)), layer


def _shown(net: WatchedModel) -> Tensor:
    """All images that the net was shown (M, ...); empty before the first."""
    return torch.cat(net.shown).float() if net.shown else torch.empty(0)


@step(points=3, shares=10, forbidden=("training", "certify", "grading/given"))
def noise_loss(mine: Callable[..., Tensor], task: CertifiedAccuracyTask = FIRST,
               sigma: float | None = None, shape: tuple[int, ...] = (3, 12, 12), n: int = 24) -> Iterator[Observation]:
    """The loss for training: mean cross-entropy on noisy copies of the images, one of each, not clamped."""
    sigma, draw = sigma or task.sigmas[0], task.generator(1)
    x, y = _levels(n, shape), torch.randint(5, (n,), generator=draw)
    (net, layer), before, noise = _some_net(shape, 5, draw), x.clone(), task.generator(2)
    loss = mine(net.train(), x, y.clone(), sigma, noise)
    if not isinstance(loss, Tensor) or loss.shape != ():
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        yield wrong(f"returns {found}: return the mean loss, a tensor with one number and its gradient")
        return
    shown = _shown(net)
    if shown.shape != x.shape:
        yield wrong("the model is never asked" if not len(shown) else
                    f"the model is shown {tuple(shown.shape)}: one noisy copy of each image, {tuple(x.shape)}")
        return
    yield need(torch.equal(x, before), "the images themselves stay as they were",
               "changes the images it was given: x + noise makes new ones")
    wide = _under_much_noise(lambda net, x, sigma: mine(net, x, y.clone(), sigma, noise), before, task)
    yield from right_noise(shown, before, sigma, wide)
    shared = alike(shown - before).any()
    yield need(not shared, "each image has its own noise", "all images get the same noise: draw it in the shape of x")
    yield need(all(net.modes), "the model stays in train mode",
               "puts the model into eval mode: whoever trains sets the mode, and here it is train")
    mistake = "the loss is not the mean cross-entropy of the answers to the noisy images, with labels y"
    answers = torch.cat(net.answers)
    right = cross_entropy(answers, y)
    if matching(loss, cross_entropy(answers, y, reduction="sum")):
        mistake = "the loss is a sum over the images: take the mean, so that it does not depend on the batch's size"
    elif matching(loss, cross_entropy(answers.softmax(1), y)):
        mistake = "softmax comes twice: cross_entropy takes logits"
    yield need(matching(loss, right), "the loss is the mean cross-entropy on them", mistake, share=2)
    (expected,) = torch.autograd.grad(cross_entropy(net.model(shown), y), layer.weight)
    gradient = torch.autograd.grad(loss, layer.weight, allow_unused=True)[0] if loss.requires_grad else None
    close = gradient is not None and torch.allclose(gradient, expected, atol=1e-5)
    yield need(close, "and its gradient reaches the weights",
               "no gradient reaches the weights: no detach, no torch.no_grad, no .item()" if gradient is None else
               "the gradient is not that of the loss on the noisy images", share=2)
    yield _another_time(net, lambda: mine(net, before.clone(), y.clone(), sigma, noise), shown)


@step(points=4, shares=10, forbidden=FORBIDDEN)
def count_votes(mine: Callable[..., Tensor], task: CertifiedAccuracyTask = FIRST,
                sigma: float | None = None, images: int = 4, n: int = 60, classes: int = 7) -> Iterator[Observation]:
    """The vote: how many of n noisy copies of each image fall to each class."""
    sigma, shape = sigma or task.sigmas[0], (3, 12, 12)
    x, draw = _levels(images, shape), task.generator(4)
    (net, _), before = _some_net(shape, classes, task.generator(3)), x.clone()
    votes = mine(net.train(), x, sigma, n, draw)
    if (ending := not_a_tensor(votes)) is not None:
        yield ending
        return
    if votes.shape != (images, classes):
        yield wrong(f"returns shape {tuple(votes.shape)}: one count for each of {images} images and {classes} classes; "
                    "the logits say how many classes there are")
        return
    shown = _shown(net)
    if shown.shape[1:] != shape:
        yield wrong("the model is never asked" if not len(shown) else
                    f"the model is shown images of shape {tuple(shown.shape[1:])}")
        return
    votes = votes.double()
    yield need((votes.sum(1) == n).all(), f"{n} votes on each image",
               f"the votes on an image add up to {votes.sum(1)[0].item():g}, and {n} were asked for")
    rows = (shown.flatten(1).mean(1, keepdim=True) - before.flatten(1).mean(1)).abs().argmin(1)
    counts, answers = torch.bincount(rows, minlength=images), torch.cat(net.answers)
    noise = shown - before[rows]
    wide = _under_much_noise(lambda net, x, sigma: mine(net, x, sigma, 9, draw), before, task)
    yield from right_noise(shown, before[rows], sigma, wide)
    yield from noise_of_its_own(noise, rows)
    yield need(not any(net.modes), "the model votes in eval mode",
               "the model is in train mode: call model.eval(), or dropout and batch norm have a say")
    recount = torch.zeros(images, classes, dtype=torch.float64)
    recount.index_put_((rows, answers.argmax(1)), torch.ones(len(rows), dtype=torch.float64), accumulate=True)
    asked = bool((counts == n).all())
    yield need(asked and torch.equal(votes, recount), "counts the highest logit of each noisy copy, image by image",
               f"the model is shown {len(shown)} images: {n} noisy copies of each of {images}" if not asked else
               "the counts are not those of the model's answers to the noisy copies: which row, which class?", share=2)
    yield need(not any(net.recorded), "without gradients",
               "keeps a graph of every copy, which fills the memory: vote under torch.no_grad()")
    yield _another_time(net, lambda: mine(net, before.clone(), sigma, n, draw), shown)


def _under_much_noise(ask: Callable[[WatchedModel, Tensor, float], object], x: Tensor,
                      task: CertifiedAccuracyTask) -> Tensor:
    """What a net is shown of these images under a σ beside which the pixel box is small."""
    net, _ = _some_net(tuple(x.shape[1:]), 5, task.generator(20))
    ask(net.train(), x.clone(), 3.0)
    return _shown(net)


def _another_time(net: WatchedModel, again: Callable[[], object], shown: Tensor) -> Observation:
    """Whether a second call with the same generator shows other noise."""
    net.forget()
    again()
    fresh = _shown(net).shape != shown.shape or not torch.allclose(_shown(net), shown, atol=1e-4)
    return need(fresh, "and the next time the noise is fresh",
                "a second call shows the same noise as the first: draw from the generator given, and do not seed")
