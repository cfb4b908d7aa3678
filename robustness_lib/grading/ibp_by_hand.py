"""Checks of the exercise `ibp_by_hand`: a certificate by intervals (Gowal et al. 2018)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.attacks import PGD
from robustness_lib.certify.interval_bounds import interval_margins
from robustness_lib.grading.given import ibp_by_hand as given
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.steps import step
from robustness_lib.grading.tasks import VariedTask
from robustness_lib.threat import ThreatModel

__all__ = ["IntervalsTask", "box", "given", "margins", "task", "through_linear", "through_rising", "verdicts"]

_GIVEN = ("grading/given", "certify")
_CLOSE = 1e-4
_VARIANTS = (1.0, 1.5, 0.75, 2.0)  # ε of the check on a shipped network, in 255ths


@dataclass(frozen=True)
class IntervalsTask(VariedTask):
    """What the exercise is about, in one of its variants: two networks for road signs, ε and a seed.

    images: how many of the test set are looked at. tolerance: from where on a margin is positive whatever rounding did.
    """

    images: int = 100
    tolerance: float = 1e-3

    names = ("signs-tiny-standard", "signs-tiny-ibp")

    @property
    def eps(self) -> float:
        return _VARIANTS[self.variant % len(_VARIANTS)] / 255

    def data(self) -> tuple[Tensor, Tensor]:
        """Test images (N, C, H, W) and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y

    def net(self, name: str) -> nn.Sequential:
        """A shipped network, with the matrix of each convolution written out: Flatten, Linear and ReLU are its only
        layers, and its answers are the same."""
        net = models.load_pretrained(name)
        assert isinstance(net, nn.Sequential)
        return _written_out(net, self.data()[0][:1])

    def not_broken(self, name: str, eps: float) -> Tensor:
        """(N,) bool: which images are read rightly, and stay so under the library's PGD."""
        x, y = self.data()
        return ~PGD(ThreatModel("linf", eps), steps=20, loss="margin").run(models.load_pretrained(name), x, y).success


def task(variant: int = 0) -> IntervalsTask:
    """The exercise in one of its variants."""
    return IntervalsTask(variant)


def _written_out(net: Iterable[nn.Module], x: Tensor) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                pixels = torch.eye(x[0].numel()).reshape(-1, *x.shape[1:])
                constant = layer(torch.zeros_like(x))
                layers.append(_linear((layer(pixels) - constant).flatten(1).T, constant.flatten()))
            elif not isinstance(layer, nn.Flatten):
                layers.append(layer)
            x = layer(x)
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):  # a new layer draws its first weights
        made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.data, made.bias.data = weight.contiguous().clone(), bias.clone()
    return made.requires_grad_(False)


# One layer.


@step(points=3, shares=6, forbidden=_GIVEN)
def through_linear(mine: Callable[..., Any], task: IntervalsTask = IntervalsTask(), n: int = 7,
                   sizes: tuple[int, int] = (5, 4)) -> Iterator[Observation]:
    """A linear layer: against every corner of the box, each of them pushed through."""
    draw, (inputs, outputs) = task.generator(), sizes
    weight, bias = torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw)
    lower = torch.randn(n, inputs, generator=draw)
    upper = lower + 0.1 + torch.rand(n, inputs, generator=draw)
    given_to = weight.clone(), bias.clone(), lower.clone(), upper.clone()
    found = mine(*given_to)
    if (ending := _no_box(found, (n, outputs))) is not None:
        yield ending
        return
    least, most = _of_corners(weight, bias, lower, upper)
    yield need(all(torch.equal(a, b) for a, b in zip(given_to, (weight, bias, lower, upper), strict=True)),
               "what it is given stays as it was", "changes the tensors it was given")
    mistake = _what_linear(found, weight, bias, lower, upper)
    yield from _sound_and_tight(found, (least, most), mistake, "every corner of the box")


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
    return _first_alike(found, (
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


@step(points=2, shares=6, forbidden=_GIVEN)
def through_rising(mine: Callable[..., Any], task: IntervalsTask = IntervalsTask(),
                   shape: tuple[int, ...] = (6, 5)) -> Iterator[Observation]:
    """ReLU and other functions that never fall: against points all over each interval."""
    lower = 2 * torch.randn(shape, generator=task.generator())
    upper = lower + 0.1 + 2 * torch.rand(shape, generator=task.generator(1))
    for function, name in ((torch.relu, "ReLU"), (torch.sigmoid, "the sigmoid"), (_cubed, "x³")):
        found = mine(function, lower.clone(), upper.clone())
        if (ending := _no_box(found, shape)) is not None:
            yield ending
            return
        inside = function(torch.stack([lower + k / 50 * (upper - lower) for k in range(51)]).double())
        mistake = _what_rising(found, function, lower, upper, name)
        yield from _sound_and_tight(found, (inside.amin(0), inside.amax(0)), mistake, f"{name} of every point",
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
    return _first_alike(found, tuple(known))


# Several layers.


@step(points=4, shares=9, forbidden=("grading/given/intervals_of_a_net.py", "certify"))
def box(mine: Callable[..., Any], task: IntervalsTask = IntervalsTask(), widths: tuple[int, ...] = (6, 8, 7, 4),
        eps: float = 0.2) -> Iterator[Observation]:
    """A small net, with the pixel box: against sampled images, and against the same bound computed another way."""
    net, x = _small_net(widths, task), torch.rand(9, 1, 1, widths[0], generator=task.generator(1))
    x[:3] = x[:3].round()  # black and white pixels, where the pixel box counts
    found = mine(net, x.clone(), eps)
    if (ending := _no_box(found, (len(x), widths[-1]))) is not None:
        yield ending
        return
    inside = _images_within(x, eps, task)
    answers = torch.stack([net(images) for images in inside]).double()
    expected = _split_bounds(net, x, eps)
    outside = float(((answers < found[0].double() - _CLOSE) | (answers > found[1].double() + _CLOSE)).any(2).any(
        0).double().mean())
    mistake = _what_box(found, net, x, eps)
    yield need(outside == 0, f"holds the answers to {len(inside)} sampled images of each ball",
               mistake or f"no bound: for {100 * outside:.0f} % of the images an answer within ε lies outside",
               share=3)
    yield need(_alike(found, expected), "as tight as intervals are", mistake or
               "holds them, but is wider than intervals are" if outside == 0 else mistake or "not the intervals' box",
               share=3)
    point = mine(net, x.clone(), 0.0)
    yield need(_alike(point, (net(x), net(x))), "at ε = 0, the network's own answer",
               "at ε = 0 a box is a point, the network's own answer: is a layer or a bias left out?")
    try:
        mine(nn.Sequential(*net, _Turned()), x.clone(), eps)
        refused = False
    except Exception:  # NotImplementedError, too: the function itself is written, as was seen above
        refused = True
    yield need(refused, "refuses a layer that it has no rule for",
               "passes over a layer that it has no rule for: that is a bound of another network. Raise TypeError",
               share=2)


class _Turned(nn.Module):
    """A layer that no rule is known for."""

    def forward(self, x: Tensor) -> Tensor:
        return -3 * x.flip(1)


def _small_net(widths: Sequence[int], task: IntervalsTask) -> nn.Sequential:
    draw, layers = task.generator(2), list[nn.Module]([nn.Flatten()])
    for inputs, outputs in itertools.pairwise(widths):
        layers += [_linear(torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw)),
                   nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _images_within(x: Tensor, eps: float, task: IntervalsTask, n: int = 300) -> Tensor:
    """Images within ε of x and the pixel box (n, N, ...), half of them corners."""
    delta = 2 * torch.rand(n, *x.shape, generator=task.generator(3)) - 1
    delta[::2] = delta[::2].sign()
    return (x + eps * delta).clamp(0, 1)


def _split_bounds(net: Iterable[nn.Module], x: Tensor, eps: float, *, cut: bool = True) -> tuple[Tensor, Tensor]:
    """Interval bounds in float64 by the positive and the negative weights, each with the end that it needs."""
    lower, upper = x.double() - eps, x.double() + eps
    if cut:
        lower, upper = lower.clamp(0, 1), upper.clamp(0, 1)
    for layer in net:
        if isinstance(layer, nn.Linear):
            up, down = layer.weight.double().clamp(min=0).T, layer.weight.double().clamp(max=0).T
            bias = layer.bias.double()
            lower, upper = lower @ up + upper @ down + bias, upper @ up + lower @ down + bias
        else:
            lower, upper = layer(lower), layer(upper)
    return lower, upper


def _what_box(found: Sequence[Tensor], net: nn.Sequential, x: Tensor, eps: float) -> str | None:
    bent_last = _split_bounds([*net, nn.ReLU()], x, eps)
    straight = _split_bounds([layer for layer in net if not isinstance(layer, nn.ReLU)], x, eps)
    known = [(_split_bounds(net, x, eps, cut=False), "leaves the pixel box aside. That is a bound, and wider than need "
              "be: there are no images below 0 or above 1"),
             (_split_bounds(net, x, 2 * eps), "the box is one for 2ε: it reaches from x − ε to x + ε"),
             (_split_bounds(net, x, eps / 2), "the box is one for ε/2: it reaches from x − ε to x + ε"),
             (straight, "leaves out the ReLU layers"),
             (bent_last, "puts a ReLU behind the last layer")]
    for place, layer in enumerate(net):
        if isinstance(layer, nn.Linear) and layer.in_features == layer.out_features:
            known.append((_split_bounds([*net[:place], *net[place + 1:]], x, eps), "a layer is left out"))
    return _first_alike(found, tuple(known))


@step(points=4, shares=10, forbidden=("certify",))
def margins(mine: Callable[..., Tensor], task: IntervalsTask = IntervalsTask(), n: int = 8,
            name: str = "signs-tiny-ibp") -> Iterator[Observation]:
    """The label's margin over each other class: the bound of the difference."""
    widths = (6, 8, 5, 4)
    net, eps = _small_net(widths, task), 0.05
    x, y = torch.rand(n, 1, 1, 6, generator=task.generator(4)), torch.randint(4, (n,), generator=task.generator(5))
    found = mine(net, x.clone(), y.clone(), eps)
    if not isinstance(found, Tensor) or found.shape != (n, 4):
        yield wrong(f"returns {getattr(found, 'shape', type(found).__name__)}: a bound for each image and class, "
                    f"({n}, 4)")
        return
    own = torch.nn.functional.one_hot(y, 4).bool()
    at_label = found[own]
    yield need((at_label == torch.inf).all(), "∞ at the label itself",
               f"at the label itself stands {at_label[0]:g}: put ∞ there, else the smallest of a row is never above 0")
    answers = torch.stack([net(images) for images in _images_within(x, eps, task)])
    true = (answers.gather(2, y.expand(len(answers), n)[..., None]) - answers).amin(0)
    expected, loose = _difference(net, x, y, eps)
    mistake = _what_margin(found, net, x, y, eps, own)
    yield need((found <= true + _CLOSE)[~own].all(), "never above the margin of a sampled image",
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
        apart = _linear(last.weight[label] - last.weight, last.bias[label] - last.bias)
        found[i] = _split_bounds([*net[:-1], apart], x[i:i + 1], eps, cut=cut)[0][0]
    lower, upper = _split_bounds(net, x, eps, cut=cut)
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
    lower, upper = _split_bounds(net, x, eps)
    if _near(found, plain[other, y][:, None].double() - upper, ~own):
        return "takes the label's own answer: it moves within ε, too"
    if _near(found, upper - lower.gather(1, y[:, None]), ~own):
        return "upper(z_j) − lower(z_y): the other way round, the label comes first"
    no_bias = _linear(_last(net).weight, 0 * _last(net).bias)
    if _near(found, _difference(nn.Sequential(*net[:-1], no_bias), x, y, eps)[0], ~own):
        return "the last layer's bias is missing: b_y − b_j"
    return None


# What it proves.


@step(points=2, shares=6, forbidden=_GIVEN)
def verdicts(mine: Callable[..., Any], task: IntervalsTask = IntervalsTask(), n: int = 40) -> Iterator[Observation]:
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
    words = [str(word) for word in found] if isinstance(found, list | tuple) else None
    if words is None or len(words) != n or not set(words) <= {"certified", "open", "broken"}:
        yield wrong(f'returns {type(found).__name__}: a list of {n} words, each of them "certified", "open" or '
                    '"broken"')
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


# Small things that several checks ask.


def _no_box(found: object, shape: tuple[int, ...]) -> Observation | None:
    if not isinstance(found, tuple | list) or len(found) != 2 or not all(isinstance(end, Tensor) for end in found):
        return wrong(f"returns {type(found).__name__}: return two tensors, lower and upper")
    if any(end.shape != shape for end in found):
        return wrong(f"returns shapes {tuple(found[0].shape)} and {tuple(found[1].shape)}: both are {shape}")
    return None


def _alike(found: Any, expected: Sequence[Tensor]) -> bool:
    return all(torch.allclose(a.double(), b.double(), atol=_CLOSE, rtol=_CLOSE)
               for a, b in zip(found, expected, strict=True))


def _first_alike(found: Sequence[Tensor], known: Iterable[tuple[Sequence[Tensor], str]]) -> str | None:
    return next((words for expected, words in known if _alike(found, expected)), None)


def _sound_and_tight(found: Sequence[Tensor], true: tuple[Tensor, Tensor], mistake: str | None, what: str,
                     share: float = 2.5) -> Iterator[Observation]:
    """Whether a box holds the true range, and whether it is no larger."""
    lower, upper = (end.double() for end in found)
    holds = (lower <= true[0] + _CLOSE).all() and (upper >= true[1] - _CLOSE).all()
    yield need(holds, f"holds {what}", mistake or f"no bound: it does not hold {what}", share=share)
    yield need(holds and _alike(found, true), "and is no larger than it must be",
               "not the true range" if not holds else mistake or "holds it, but is larger than it must be", share=share)
