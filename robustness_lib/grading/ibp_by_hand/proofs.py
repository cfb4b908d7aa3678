"""Checks of `ibp_by_hand` on what intervals prove: margins, and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib import models
from robustness_lib.certify.interval_bounds import interval_margins
from robustness_lib.grading.ibp_by_hand.intervals import CLOSE, images_within, small_net, split_bounds
from robustness_lib.grading.ibp_by_hand.variants import FIRST, FORBIDDEN, IntervalsTask
from robustness_lib.grading.linear_models import linear_layer
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import not_of_shape
from robustness_lib.grading.steps import step
from robustness_lib.threat import ThreatModel

__all__ = ["margins", "verdicts"]


@step(points=4, shares=10, forbidden=("certify",))
def margins(mine: Callable[..., Tensor], task: IntervalsTask = FIRST, n: int = 8,
            name: str = "signs-tiny-ibp") -> Iterator[Observation]:
    """The label's margin over each other class: the bound of the difference."""
    widths = (6, 8, 5, 4)
    net, eps = small_net(widths, task), 0.05
    x, y = torch.rand(n, 1, 1, 6, generator=task.generator(4)), torch.randint(4, (n,), generator=task.generator(5))
    found = mine(net, x.clone(), y.clone(), eps)
    if (ending := not_of_shape(found, (n, 4), "a bound for each image and class")) is not None:
        yield ending
        return
    own = torch.nn.functional.one_hot(y, 4).bool()
    at_label = found[own]
    yield need((at_label == torch.inf).all(), "∞ at the label itself",
               f"at the label itself stands {at_label[0]:g}: put ∞ there, else the smallest of a row is never above 0")
    answers = torch.stack([net(images) for images in images_within(x, eps, task)])
    true = (answers.gather(2, y.expand(len(answers), n)[..., None]) - answers).amin(0)
    expected, loose = _difference(net, x, y, eps)
    mistake = _what_margin(found, net, x, y, eps, own)
    yield need((found <= true + CLOSE)[~own].all(), "never above the margin of a sampled image",
               mistake or "no lower bound: an image within ε has a smaller margin", share=3)
    tight = _near(found, expected, ~own)
    yield need(tight, "the bound of the difference",
               mistake or ("the difference of the bounds. It holds, but it lets the same neuron help both classes: "
                           "subtract the last layer's rows first" if _near(found, loose, ~own) else
                           "not the bound of the difference z_y − z_j"), share=3)
    yield from _as_the_library(mine, task, name)


def _as_the_library(mine: Callable[..., Tensor], task: IntervalsTask, name: str) -> Iterator[Observation]:
    (x, y), net = task.data(), task.net(name)
    x, y = x[:20], y[:20]
    theirs = interval_margins(models.load_pretrained(name), x, y, ThreatModel("linf", task.eps))
    found = mine(net, x, y, task.eps)
    fits = isinstance(found, Tensor) and found.shape == theirs.shape
    yield need(fits and _near(found, theirs, theirs < torch.inf), f"on {name} as the library's, on 20 road signs",
               f"on {name} at ε = {255 * task.eps:g}/255 the library's bounds are others", share=3)


def _last(net: nn.Sequential) -> nn.Linear:
    last = net[-1]
    assert isinstance(last, nn.Linear)
    return last


def _near(found: Tensor, expected: Tensor, where: Tensor) -> bool:
    return bool(torch.allclose(found[where].double(), expected[where].double(), atol=1e-3, rtol=1e-4))


def _difference(net: nn.Sequential, x: Tensor, y: Tensor, eps: float, *,
                cut: bool = True) -> tuple[Tensor, Tensor]:
    """Bounds of z_y − z_j (N, K) by intervals: of the difference, and the difference of the two bounds. Class by class,
    with a last layer that is the difference."""
    last = _last(net)
    found = torch.zeros(len(x), last.out_features, dtype=torch.float64)
    for i, label in enumerate(y.tolist()):
        apart = linear_layer(last.weight[label] - last.weight, last.bias[label] - last.bias).requires_grad_(False)
        found[i] = split_bounds([*net[:-1], apart], x[i:i + 1], eps, cut=cut)[0][0]
    lower, upper = split_bounds(net, x, eps, cut=cut)
    return found, lower.gather(1, y[:, None]) - upper


def _what_margin(found: Tensor, net: nn.Sequential, x: Tensor, y: Tensor, eps: float, own: Tensor) -> str | None:
    plain = net(x)
    other = torch.arange(len(y))
    for expected, words in (
            (_difference(net, x, net(x).argmax(1), eps)[0], "takes the predicted label: the margin is that of y, and "
             "an image that is misread has a negative one"),
            (_difference(net, x, y * 0, eps)[0], "ignores the label: z_y − z_j, with each image's own y"),
            (_difference(net, x, y, 2 * eps)[0], "the margin is one for 2ε"),
            (_difference(net, x, y, eps / 2)[0], "the margin is one for ε/2"),
            (_difference(net, x, y, 0.0)[0], "the margin of the image itself: the whole ball is meant"),
            (-_difference(net, x, y, 0.0)[0], "z_j − z_y of the image itself: the label comes first")):
        if _near(found, expected, ~own):
            return words
    lower, upper = split_bounds(net, x, eps)
    if _near(found, plain[other, y][:, None].double() - upper, ~own):
        return "takes the label's own answer: it moves within ε, too"
    if _near(found, upper - lower.gather(1, y[:, None]), ~own):
        return "upper(z_j) − lower(z_y): the other way round, the label comes first"
    no_bias = linear_layer(_last(net).weight, 0 * _last(net).bias).requires_grad_(False)
    if _near(found, _difference(nn.Sequential(*net[:-1], no_bias), x, y, eps)[0], ~own):
        return "the last layer's bias is missing: b_y − b_j"
    return None


@step(points=2, shares=6, forbidden=FORBIDDEN)
def verdicts(mine: Callable[..., Any], task: IntervalsTask = FIRST, n: int = 40) -> Iterator[Observation]:
    """Certified, broken or open, for each image."""
    draw, tolerance = task.generator(6), task.tolerance
    bounds = 2 * torch.rand(n, 4, generator=draw) - 0.4
    broken = torch.rand(n, generator=draw) < 0.4
    bounds[:4] = torch.tensor([[0.0, 1, 2, 3], [tolerance / 2, 1, 2, 3], [2 * tolerance, 1, 2, 3], [-1.0, 1, 2, 3]])
    bounds[torch.arange(4), [3, 3, 3, 1]] = torch.inf
    bounds[torch.arange(4, n), torch.randint(4, (n - 4,), generator=draw)] = torch.inf
    broken[:4] = False
    sure = bounds.amin(1) > tolerance
    broken &= ~sure  # a proof and an attack never disagree
    found = mine(bounds.clone(), broken.clone(), tolerance)
    if not isinstance(found, list | tuple) or len(found) != n:
        has = f" of {len(found)}" if isinstance(found, list | tuple) else ""
        yield wrong(f"returns {type(found).__name__}{has}: return a list of {n} words, one for each image")
        return
    words = [str(word) for word in found]
    if odd := set(words) - {"certified", "open", "broken"}:
        yield wrong(f'returns a list with {min(odd)!r} in it: each word is "certified", "open" or "broken"')
        return
    certified = torch.tensor([word == "certified" for word in words])
    opened = torch.tensor([word == "open" for word in words])
    edge = certified[:2]
    yield need(not edge.any(), "a margin of 0, or one that rounding could have made, certifies nothing",
               "a margin of exactly 0 is called certified: strictly above" if edge[0] else
               f"a margin of {tolerance / 2:g} is called certified: rounding alone could have made it. Strictly above "
               "the tolerance")
    yield need(torch.equal(certified[2:], sure[2:]), "certified where all other classes are held off",
               "one class that is held off is enough for you: all of them must be"
               if (certified & ~sure)[2:].any() else
               "an image is not called certified though all its margins are above the tolerance", share=2)
    left = ~sure & ~broken
    left[:2] = False
    yield need(opened[left].all() and not (opened & broken).any(), "what is neither is open",
               "what is not certified is called broken: it is open until an attack breaks it"
               if not opened[left].all() else "what the attack broke is called open", share=3)
