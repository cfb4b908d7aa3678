"""Checks of the exercise `break_the_defence`: an adaptive attack through a rounding and a random size and place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.attacks import PGD
from robustness_lib.defenses import BitDepth
from robustness_lib.grading.draws import InTurn, NotedResizePad
from robustness_lib.grading.given import break_the_defence as given
from robustness_lib.grading.images import SLACK, in_box, not_images
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.steps import step
from robustness_lib.losses import margin_loss
from robustness_lib.threat import ThreatModel

__all__ = ["DefenseTask", "adaptive_attack", "eot_gradient", "given", "stands", "straight_through", "task",
           "three_bars"]

_GIVEN = ("grading/given", "attacks")
_VARIANTS = ((14, 3, 0.6), (13, 3, 0.7), (14, 3, 0.7), (13, 3, 0.6))  # ε, bits, smallest size
_JUDGING = 10_000  # where the random numbers of whoever judges begin, which no attack has seen


@dataclass(frozen=True)
class DefenseTask:
    """What the exercise is about, in one of its variants: a defended model, ε, a seed, and what the attack may cost.

    images: how many of the test set are attacked. judged: fresh answers for each image, when an attack is judged.
    most: the share of them that may stand after a right attack.
    """

    variant: int = 0
    images: int = 60
    steps: int = 25
    draws: int = 4
    judged: int = 15
    most: float = 0.10

    @property
    def eps(self) -> float:
        return _VARIANTS[self.variant % len(_VARIANTS)][0] / 255

    def net(self) -> nn.Module:
        """The network without any defense."""
        return models.load_pretrained("signs-standard").eval().to(memory_format=torch.channels_last)

    def defense(self) -> BitDepth:
        """Pixels of few levels, then a random size and place, then the network."""
        _, bits, smallest = _VARIANTS[self.variant % len(_VARIANTS)]
        return BitDepth(NotedResizePad(self.net(), smallest), bits)

    def data(self) -> tuple[Tensor, Tensor]:
        """Test images (N, C, H, W), and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y

    def unaware(self, *, all_steps: bool = False) -> Tensor:
        """What PGD finds on the bare network, (N, C, H, W). It stops at the first point that the network misreads, as
        attacks do by default, unless it is to take all its steps."""
        attack = PGD(ThreatModel("linf", self.eps), steps=20, loss="margin",
                     stop="never" if all_steps else "success")
        return attack.run(self.net(), *self.data()).x_adv

    @property
    def seed(self) -> int:
        return 1000 * self.variant

    def generator(self, number: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + number)

    def judge(self, defense: nn.Module, x: Tensor) -> tuple[Tensor, float]:
        """Whether each image stands (N,), and the mean margin loss, under random numbers that no attack has seen."""
        _, y = self.data()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_JUDGING + self.seed)
            standing = given.stands(defense, x, y, self.judged)
            return standing, margin_loss(defense(x), y).mean().item()


def task(variant: int = 0) -> DefenseTask:
    """The exercise in one of its variants."""
    return DefenseTask(variant)


# The parts.


@step(points=3, shares=6, forbidden=_GIVEN)
def stands(mine: Callable[..., Tensor], task: DefenseTask = DefenseTask(), n: int = 24,
           draws: int = 9) -> Iterator[Observation]:
    """The count: an image stands where more than half of the fresh answers are right."""
    votes = torch.randint(draws + 1, (n,), generator=task.generator())
    votes[:4] = torch.tensor([0, draws, draws // 2, draws // 2 + 1])
    defense, x, y = _voting(votes, draws, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        found = mine(defense, x.clone(), y.clone(), draws)
        asked = defense.asked.tolist()
        again = mine(defense, x.clone(), y.clone(), draws)
    if not isinstance(found, Tensor) or found.shape != (n,):
        yield wrong(f"returns {getattr(found, 'shape', type(found).__name__)}: one truth value for each image, ({n},)")
        return
    yield need(found.dtype == torch.bool, "one truth value for each image",
               f"returns {found.dtype}: it asks whether each image stands, so return bool")
    yield need(set(asked) == {draws}, f"asks {draws} times about each image",
               f"asks {max(asked)} times about an image, and {draws} fresh answers are to be had of each", share=2)
    yield need(defense.log.repeated == 0, "asks with fresh draws each time",
               "the second count has the first one's draws: a seed that is set inside makes every count the same, and "
               "the attack's draws the judge's")
    right = votes > draws / 2
    yield need(torch.equal(found.bool(), right) and torch.equal(again.bool(), right),
               "an image stands by more than half of its answers", _how_counted(found.bool(), votes, draws, defense, y),
               share=2)


def _voting(votes: Tensor, draws: int, task: DefenseTask) -> tuple[InTurn, Tensor, Tensor]:
    """A model that names the label in so many of its answers, with images and labels. What is wrong is said louder the
    more often the image is right, so that mean scores would decide otherwise than votes do."""
    n, classes = len(votes), 5
    x = torch.rand(n, 1, 4, 4, generator=task.generator(1))
    y = torch.randint(classes, (n,), generator=task.generator(2))
    order = torch.rand(draws, n, generator=task.generator(3)).argsort(0)
    right = order < votes
    named = torch.where(right, y, (y + 1) % classes)
    loud = torch.where(right, 1.0, torch.where(votes > draws / 2, 30.0, 0.3))
    return InTurn(x, torch.nn.functional.one_hot(named, classes) * loud[..., None]), x, y


def _how_counted(found: Tensor, votes: Tensor, draws: int, defense: InTurn, y: Tensor) -> str:
    mean = defense._bias.mean(0).argmax(1) == y
    first, last = (defense._bias[k].argmax(1) == y for k in (0, -1))
    for other, words in ((votes <= draws / 2, "says where an image is broken, and it is to say where one stands"),
                         (votes == draws, "one unlucky draw counts as broken: more than half of the answers decide"),
                         (votes > 0, "one lucky draw is enough to stand: more than half of the answers decide"),
                         (mean, "takes the mean of the scores, where a few loud answers outvote the rest: count answers"
                          ),
                         (first, "one answer decides: more than half of them are to"),
                         (last, "the last answer decides: more than half of them are to")):
        if torch.equal(found, other):
            return words
    return "counts otherwise than by more than half of each image's answers"


@step(points=3, shares=7, forbidden=(*_GIVEN, "straight_through.py"))
def straight_through(mine: Callable[..., Tensor], task: DefenseTask = DefenseTask(), levels: int = 8,
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


@step(points=4, shares=8, forbidden=_GIVEN)
def eot_gradient(mine: Callable[..., Tensor], task: DefenseTask = DefenseTask(), n: int = 5,
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


# The attack.


@step(points=6, shares=20, forbidden=("attacks",))
def adaptive_attack(mine: Callable[..., Tensor], task: DefenseTask = DefenseTask()) -> Iterator[Observation]:
    """PGD through rounding and randomness, judged by answers that it has not seen."""
    (x, y), defense = task.data(), task.defense()
    log, off, top = _noting(defense).log, [0.0], 2**defense.bits - 1
    _noting(defense).register_forward_pre_hook(
        lambda _, given_to: off.append((given_to[0].detach() * top).frac().sub(0.5).abs().sub(0.5).abs().max().item()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        x_adv = mine(defense, x.clone(), y.clone(), task.eps, task.steps, task.draws)
    climbed, repeated, answers = log.climbed, log.repeated, len(log.states)
    if (ending := not_images(x_adv, x)) is not None:
        yield ending
        return
    x_adv = x_adv.detach().float()
    far = (x_adv - x).abs().max().item()
    if far == 0:
        yield wrong("hands back the images as they came. Is the gradient zero? torch.round has none")
        return
    legal = far <= task.eps * (1 + SLACK) + 1e-6 and in_box(x_adv)
    yield need(legal, "every point lies within ε of its image, and in the pixel box",
               "pixels leave [0, 1]: clamp after each step" if not in_box(x_adv) else
               f"a point lies {far / task.eps:.2f} ε from its image: project onto the ball after each step", share=2)
    each = climbed / (len(x) * task.steps)
    yield need(0.75 * task.draws <= each <= task.draws * (task.steps + 1) / task.steps,
               f"{task.draws} gradients of the defense for each image and step",
               "never asks the defense for a gradient: that is an attack on the bare network, which does not know it"
               if not climbed else
               f"{each:.1f} gradients for each image and step, and {task.draws} are to be: take all draws, and all "
               "steps, since a stop at the first success is a stop at a lucky draw", share=4)
    yield need(answers and repeated < 0.1 * answers, "fresh draws at each step",
               "the same draws in every step: the attack fits these, and fails on others" if answers else
               "never asks the defense at all", share=4)
    yield need(answers and max(off) < 1e-3, "the network gets rounded images on the way forward",
               "the network gets images that were not rounded: forward, take the defense as it is" if answers else
               "rounds nothing", share=2)
    yield from _breaks(defense, x, x_adv, legal, task)


def _noting(defense: BitDepth) -> NotedResizePad:
    assert isinstance(defense.model, NotedResizePad)
    return defense.model


def _breaks(defense: BitDepth, x: Tensor, x_adv: Tensor, legal: bool, task: DefenseTask) -> Iterator[Observation]:
    (before, clean_loss), (after, loss) = task.judge(defense, x), task.judge(defense, x_adv)
    left, clean = after.double().mean().item(), before.double().mean().item()
    words = (f"{100 * left:.0f} % of {len(x)} images stand ({100 * clean:.0f} % without an attack), by the majority of "
             f"{task.judged} fresh answers")
    moved = (x_adv - x).abs().mean().item() / task.eps
    why = ("it does not count, outside of ball or box" if not legal else
           "the points look like noise: does any gradient come back through the rounding?" if moved < 0.6 else
           "the loss falls where it should rise: climb, x + η·sign" if loss < clean_loss else
           f"more than {100 * task.most:.0f} %: does the gradient go through the defense, and over fresh draws?")
    yield need(legal and left <= task.most, words, f"{words}: {why}", share=8)


@step(points=2, shares=6, forbidden=("attacks",))
def three_bars(mine: Callable[..., Any], task: DefenseTask = DefenseTask(), n: int = 40,
               draws: int = 5) -> Iterator[Observation]:
    """The three bars: without an attack, under the unaware one, and under the best of what is known."""
    standing = torch.rand(3, n, generator=task.generator()) < torch.tensor([0.85, 0.75, 0.45])[:, None]
    standing[:, :4] = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 0], [0, 1, 1, 1]]).bool()
    defense, sets, y = _scripted(standing, draws, task)
    with torch.random.fork_rng(devices=[]):
        found = mine(defense, sets[0].clone(), y, sets[1].clone(), sets[2].clone(), draws)
    bars = torch.as_tensor(found, dtype=torch.float64) if not isinstance(found, tuple | list) else torch.tensor(
        [float(bar) for bar in found], dtype=torch.float64)
    if bars.shape != (3,):
        yield wrong(f"returns shape {tuple(bars.shape)}: three shares, without an attack, unaware, adaptive")
        return
    worst = standing.cumprod(0).double().mean(1)
    alone, clean = standing.double().mean(1), standing[0].double().mean()
    off = torch.allclose(bars, torch.ones(3, dtype=torch.float64))
    instead = "the defense is switched off: ask defense(x), not the network inside it" if off else None
    yield need(abs(bars[0] - worst[0]) < 1e-6, "without an attack, the share of all images that stand",
               instead or ("divides by the images that stand: the share is of all" if bars[0] == 1 else
                           "the first bar is not the share of images that stand"))
    yield need(abs(bars[1] - worst[1]) < 1e-6, "under the unaware attack, of all images",
               instead or _bar(bars[1], alone[1], worst[1] / clean), share=2)
    yield need(abs(bars[2] - worst[2]) < 1e-6, "in the worst case: an image stands that stands under all of them",
               instead or _bar(bars[2], alone[2], worst[2] / clean), share=3)


def _scripted(standing: Tensor, draws: int, task: DefenseTask) -> tuple[BitDepth, Tensor, Tensor]:
    """A defense with three sets of images (3, N, C, H, W), whose majority is right where `standing` (3, N) says. The
    network inside it is right about all of them."""
    sets, n = standing.shape
    levels = torch.randint(16, (sets * n, 3, 4, 4), generator=task.generator(5)) / 15
    votes = torch.where(standing.flatten(), draws // 2 + 1, draws // 2)
    y = torch.randint(5, (n,), generator=task.generator(6))
    order = torch.rand(draws, sets * n, generator=task.generator(7)).argsort(0)
    named = torch.where(order < votes, y.repeat(sets), (y.repeat(sets) + 1) % 5)
    random = InTurn(levels, torch.nn.functional.one_hot(named, 5).float())
    random.model = InTurn(levels, torch.nn.functional.one_hot(y.repeat(sets), 5)[None].float())
    return BitDepth(random, 4), levels.reshape(sets, n, 3, 4, 4), y


def _bar(found: Tensor, alone: Tensor, of_right: Tensor) -> str:
    if abs(found - of_right) < 1e-6:
        return "divides by the images that are right without an attack: the share is of all images"
    if abs(found - alone) < 1e-6:
        return ("counts this attack alone: an image that is misread without an attack, or under an earlier one, does "
                "not stand")
    return "not the share of images that stand without an attack and under each one so far"
