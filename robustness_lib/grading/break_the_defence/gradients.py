"""Checks of `break_the_defence` on gradients through a defense: BPDA past a rounding, EOT over random draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustness_lib.grading.break_the_defence.random_answers import InTurn
from robustness_lib.grading.break_the_defence.variants import FIRST, FORBIDDEN, DefenseTask
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.returned_values import not_images
from robustness_lib.grading.steps import step
from robustness_lib.losses import margin_loss

__all__ = ["eot_gradient", "straight_through"]


@step(points=3, shares=7, forbidden=(*FORBIDDEN, "straight_through.py"))
def straight_through(mine: Callable[..., Tensor], task: DefenseTask = FIRST, levels: int = 8,
                     shape: tuple[int, ...] = (6, 3, 5, 5)) -> Iterator[Observation]:
    """BPDA: forward the defense, exactly; backward as if it were the identity."""
    def rounded(images: Tensor) -> Tensor:
        return torch.round(images * (levels - 1)) / (levels - 1)

    def coded(images: Tensor) -> Tensor:
        return torch.from_numpy(rounded(images.detach().double()).numpy()).to(images.dtype)

    def bent(images: Tensor) -> Tensor:
        return images**2

    x, scale = torch.rand(shape, generator=task.generator()), torch.randn(shape, generator=task.generator(1))
    before = x.clone()
    plain = mine(rounded, x)
    if (ending := not_images(plain, x)) is not None:
        yield ending
        return
    yield need(torch.equal(x, before), "the images stay as they were", "changes the images it was given")
    plain = plain.float()
    yield need((plain - rounded(before)).abs().max() < 1e-5, "forward, it is the defense",
               "hands on the images without the defense: the value is that of transform(x), and only the gradient is "
               "the identity's" if torch.allclose(plain, before, atol=1e-6) else
               "forward, these are not the values of transform(x)", share=2)
    for transform, name in ((rounded, "a rounding"), (coded, "a coder that autograd does not see"),
                            (bent, "a transform with a slope of its own")):
        point = before.clone().requires_grad_()
        seen = mine(transform, point)
        if not seen.requires_grad:
            yield need(False, "", f"no gradient goes back through {name}: of the two parts of the sum, x itself must "
                       "stay undetached")
            continue
        (slope,) = torch.autograd.grad((scale * seen.float()**2).sum() / 2, point)
        value = transform(before)
        yield need(torch.allclose(slope, scale * value, atol=1e-4), f"backward, it is the identity through {name}",
                   _what_slope(slope, scale, value, before, name), share=4 / 3)


def _what_slope(slope: Tensor, scale: Tensor, value: Tensor, x: Tensor, name: str) -> str:
    if not slope.any():
        return f"the gradient through {name} is zero: torch.round has none, and a way past it is wanted"
    if torch.allclose(slope, scale * x, atol=1e-4):
        return f"the gradient through {name} is taken at x: it belongs to the value of transform(x)"
    if torch.allclose(slope, scale * value * (1 + 2 * x), atol=1e-4):
        return f"adds the slope of {name} to the identity's: detach transform(x)"
    if torch.allclose(slope, scale * value * 2 * x, atol=1e-4):
        return f"the gradient through {name} is its own: the identity's is wanted"
    return f"the gradient through {name} is not that of the identity"


@step(points=4, shares=8, forbidden=FORBIDDEN)
def eot_gradient(mine: Callable[..., Tensor], task: DefenseTask = FIRST, n: int = 5,
                 draws: int = 6) -> Iterator[Observation]:
    """EOT: the mean, over fresh draws, of the gradients of each image's loss."""
    x, y, answer, slopes = _linear_draws(n, draws, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        found = mine(answer, x, y, draws)
        asked = answer.asked.tolist()
        if (ending := not_images(found, x)) is not None:
            yield ending
            return
        mine(answer, x, y, draws)
    yield need(x.grad is None and not found.requires_grad, "leaves no graph and no gradient behind",
               "leaves a gradient on the images, or a graph on what it returns: the next step's would be added to it")
    yield need(set(asked) == {draws}, f"asks for {draws} draws of each image",
               f"asks {max(asked)} times about an image, and {draws} draws are to be had of each", share=2)
    yield need(answer.log.repeated == 0, "with fresh draws at each call",
               "the same draws at each call: a seed that is set inside gives every step the same, and the attack fits "
               "these alone", share=2)
    mean = slopes.mean(0)
    yield need(torch.allclose(found.float(), mean, atol=1e-4), "the mean of the gradients",
               _which_gradient(found.float(), slopes, answer, x, y), share=3)


def _linear_draws(n: int, draws: int, task: DefenseTask) -> tuple[Tensor, Tensor, InTurn, Tensor]:
    """Images, labels, a model that is linear in each draw, and the margin loss's gradient in each (draws, N, C, H, W):
    by hand, the weights of the best other class less the label's."""
    shape, classes, draw = (3, 4, 4), 4, task.generator()
    x, y = torch.rand(n, *shape, generator=draw), torch.randint(classes, (n,), generator=draw)
    weight = torch.randn(draws, n, classes, 48, generator=draw)
    bias = 2 * torch.randn(draws, n, classes, generator=draw)
    scores = bias + (weight * x.flatten(1)[None, :, None]).sum(3)
    own = torch.nn.functional.one_hot(y, classes).bool()
    other = scores.masked_fill(own, -torch.inf).argmax(2)
    rows, turns = torch.arange(n), torch.arange(draws)[:, None]
    slopes = weight[turns, rows, other] - weight[turns, rows, y]
    return x, y, InTurn(x, bias, weight), slopes.reshape(draws, n, *shape)


def _which_gradient(found: Tensor, slopes: Tensor, answer: InTurn, x: Tensor, y: Tensor) -> str:
    mean, n = slopes.mean(0), len(x)
    point = x.detach().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        scores = torch.stack([answer(point) for _ in range(len(slopes))]).mean(0)
    (of_mean,) = torch.autograd.grad(margin_loss(scores, y).sum(), point)
    for other, words in ((-mean, "the sign is turned round: the gradient of the loss, which the attack climbs"),
                         (slopes.sum(0), "the sum of the gradients: divide by the number of draws"),
                         (mean / n, "divided by the number of images: sum the losses of a batch, so that each image "
                          "keeps its own gradient"),
                         (of_mean, "the gradient of the loss of the mean scores. That is another estimator: here the "
                          "loss of each draw has its gradient, and these are averaged"),
                         (-of_mean, "the sign is turned round, and the loss is that of the mean scores"),
                         (slopes.sign().mean(0), "a mean of signs: the sign is taken after the mean"),
                         (mean.sign(), "the sign of the gradient: the attack takes it, this step hands on the mean"),
                         (slopes[0], "the gradient of the first draw alone: take the mean over all of them"),
                         (slopes[-1], "the gradient of the last draw alone: take the mean over all of them")):
        if torch.allclose(found, other, atol=1e-4):
            return words
    return "this is not the mean of the gradients of the margin loss in each draw"
