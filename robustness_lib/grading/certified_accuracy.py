"""Checks of the exercise `certified_accuracy`: a certificate by voting (Cohen, Rosenfeld and Kolter 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robustness_lib import data, models
from robustness_lib.attacks import PGD
from robustness_lib.certify import ABSTAINED, SmoothedClassifier
from robustness_lib.grading.given import certified_accuracy as given
from robustness_lib.grading.images import in_box
from robustness_lib.grading.linear import linear_classifier, points_at
from robustness_lib.grading.noise_watcher import NoiseWatcher, alike, noise_mistake
from robustness_lib.grading.numbers import is_number, matching
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.steps import step
from robustness_lib.grading.tasks import VariedTask
from robustness_lib.threat import ThreatModel

__all__ = ["CertifiedAccuracyTask", "Voted", "attacked_accuracy", "certified_accuracy", "certified_radius", "certify",
           "count_votes", "given", "larger_wins", "lower_bound", "noise_loss", "sandwich", "task"]

_OWN = ("certify", "statistics.py", "grading/given")
_VARIANTS = ((0.25, 0.5), (0.12, 0.5), (0.25, 1.0), (0.12, 0.25))


class Voted(NamedTuple):
    """What was certified: class (N,) int64, −1 where the vote abstained, and radius (N,), 0 there."""

    prediction: Tensor
    radius: Tensor


@dataclass(frozen=True)
class CertifiedAccuracyTask(VariedTask):
    """What the exercise is about, in one of its variants: two σ, each with a net that was trained for it, and a seed.

    images: how many of the test set are certified. n0, n: votes that choose a class, and that bound its share.
    alpha: the probability with which a certificate may be wrong.
    """

    images: int = 40
    n0: int = 50
    n: int = 500
    alpha: float = 0.001

    @property
    def sigmas(self) -> tuple[float, float]:
        return _VARIANTS[self.variant % len(_VARIANTS)]

    def model(self, sigma: float) -> nn.Module:
        return models.load_pretrained(f"signs-gaussian-{sigma:g}")

    def data(self) -> tuple[Tensor, Tensor]:
        """The first test images (N, C, H, W), and their labels (N,)."""
        x, y, _ = data.load("signs", "test", n=self.images)
        return x, y

    def voted(self, sigma: float) -> Voted:
        """The votes on the images under this σ, counted once and kept, and what they certify."""
        return _voted(self, sigma)

    @property
    def radii(self) -> Tensor:
        """Radii for a curve, (B,), beyond the largest that so many votes can certify."""
        largest = self.sigmas[1] * norm.ppf(self.alpha ** (1 / self.n))
        return torch.linspace(0, 1.05 * largest, 81, dtype=torch.float64)


@lru_cache(maxsize=8)
def _voted(task: CertifiedAccuracyTask, sigma: float) -> Voted:
    model, (x, _), draw = task.model(sigma), task.data(), task.generator(7)
    chosen = given.count_votes(model, x, sigma, task.n0, draw).argmax(1)
    hits = given.count_votes(model, x, sigma, task.n, draw).gather(1, chosen[:, None])[:, 0]
    radius = torch.tensor([given.certified_radius(given.lower_bound(one, task.n, task.alpha), sigma)
                           for one in hits.tolist()], dtype=torch.float64)
    return Voted(torch.where(radius > 0, chosen, ABSTAINED), radius)


def task(variant: int = 0) -> CertifiedAccuracyTask:
    """The exercise in one of its variants."""
    return CertifiedAccuracyTask(variant)


# Noise: training under it, and votes.


def _levels(n: int, shape: tuple[int, ...]) -> Tensor:
    """n plain images (n, C, H, W), from black to white: under any noise one sees which is which."""
    return torch.linspace(0, 1, n).reshape(-1, 1, 1, 1).repeat(1, *shape)


def _some_net(shape: tuple[int, ...], classes: int, generator: torch.Generator) -> NoiseWatcher:
    """A linear net with random weights, whose answer to an image changes with the noise on it."""
    layer = nn.Linear(math.prod(shape), classes)
    with torch.no_grad():
        weights = torch.randn(classes, math.prod(shape), generator=generator)
        layer.weight.copy_((weights - weights.mean(1, keepdim=True)) / 10)
        layer.bias.zero_()
    return NoiseWatcher(nn.Sequential(nn.Flatten(), layer))


@step(points=3, shares=10, forbidden=("training", "certify", "grading/given"))
def noise_loss(mine: Callable[..., Tensor], task: CertifiedAccuracyTask = CertifiedAccuracyTask(),
               sigma: float | None = None, shape: tuple[int, ...] = (3, 12, 12), n: int = 24) -> Iterator[Observation]:
    """The loss for training: mean cross-entropy on noisy copies of the images, one of each, not clamped."""
    sigma, draw = sigma or task.sigmas[0], task.generator(1)
    x, y = _levels(n, shape), torch.randint(5, (n,), generator=draw)
    net, before, noise = _some_net(shape, 5, draw).train(), x.clone(), task.generator(2)
    loss = mine(net, x, y.clone(), sigma, noise)
    if not isinstance(loss, Tensor) or loss.shape != ():
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        yield wrong(f"returns {found}: return the mean loss, a tensor with one number and its gradient")
        return
    shown = net.shown
    if shown.shape != x.shape:
        yield wrong("the model is never asked" if not len(shown) else
                    f"the model is shown {tuple(shown.shape)}: one noisy copy of each image, {tuple(x.shape)}")
        return
    yield need(torch.equal(x, before), "the images themselves stay as they were",
               "changes the images it was given: x + noise makes new ones")
    yield from _right_noise(shown, before, sigma)
    shared = alike(shown - before).any()
    yield need(not shared, "each image has its own noise", "all images get the same noise: draw it in the shape of x")
    yield need(all(net.modes), "the model stays in train mode",
               "puts the model into eval mode: whoever trains sets the mode, and here it is train")
    mistake = "the loss is not the mean cross-entropy of the answers to the noisy images, with labels y"
    right = cross_entropy(net.answers, y)
    if matching(loss, cross_entropy(net.answers, y, reduction="sum")):
        mistake = "the loss is a sum over the images: take the mean, so that it does not depend on the batch's size"
    elif matching(loss, cross_entropy(net.answers.softmax(1), y)):
        mistake = "softmax comes twice: cross_entropy takes logits"
    yield need(matching(loss, right), "the loss is the mean cross-entropy on them", mistake, share=2)
    layer = net.model[1]  # type: ignore[index]
    (expected,) = torch.autograd.grad(cross_entropy(net.model(shown), y), layer.weight)
    gradient = torch.autograd.grad(loss, layer.weight, allow_unused=True)[0] if loss.requires_grad else None
    close = gradient is not None and torch.allclose(gradient, expected, atol=1e-5)
    yield need(close, "and its gradient reaches the weights",
               "no gradient reaches the weights: no detach, no torch.no_grad, no .item()" if gradient is None else
               "the gradient is not that of the loss on the noisy images", share=2)
    yield _another_time(net, lambda: mine(net, before.clone(), y.clone(), sigma, noise), shown)


def _right_noise(shown: Tensor, x: Tensor, sigma: float) -> Iterator[Observation]:
    """Two shares: the images under noise lie outside the box, and what was added is N(0, σ²)."""
    mistake = noise_mistake(shown - x, sigma)
    clean = torch.equal(shown, x)
    clamped = in_box(shown) and not clean
    yield need(not clamped and not clean, "the noisy images are not clamped",
               mistake if clean and mistake else
               "noisy images are clamped to [0, 1]: the certificate is about the whole normal distribution")
    yield need(mistake is None and not clamped, f"the noise is normal with standard deviation σ = {sigma:g}",
               "clamping has cut the noise short" if clamped else mistake or "")


@step(points=4, shares=10, forbidden=_OWN)
def count_votes(mine: Callable[..., Tensor], task: CertifiedAccuracyTask = CertifiedAccuracyTask(),
                sigma: float | None = None, images: int = 4, n: int = 60, classes: int = 7) -> Iterator[Observation]:
    """The vote: how many of n noisy copies of each image fall to each class."""
    sigma, shape = sigma or task.sigmas[0], (3, 12, 12)
    x, draw = _levels(images, shape), task.generator(4)
    net, before = _some_net(shape, classes, task.generator(3)).train(), x.clone()
    votes = mine(net, x, sigma, n, draw)
    if not isinstance(votes, Tensor) or votes.shape != (images, classes):
        found = f"shape {tuple(votes.shape)}" if isinstance(votes, Tensor) else type(votes).__name__
        yield wrong(f"returns {found}: one count for each of {images} images and {classes} classes; the logits say how "
                    "many classes there are")
        return
    shown, answers = net.shown, net.answers
    if shown.shape[1:] != shape:
        yield wrong("the model is never asked" if not len(shown) else
                    f"the model is shown images of shape {tuple(shown.shape[1:])}")
        return
    votes = votes.double()
    yield need((votes.sum(1) == n).all(), f"{n} votes on each image",
               f"the votes on an image add up to {votes.sum(1)[0].item():g}, and {n} were asked for")
    rows = (shown.flatten(1).mean(1, keepdim=True) - before.flatten(1).mean(1)).abs().argmin(1)
    counts = torch.bincount(rows, minlength=images)
    noise = shown - before[rows]
    yield from _right_noise(shown, before[rows], sigma)
    yield from _noise_of_its_own(noise, rows)
    yield need(not any(net.modes), "the model votes in eval mode",
               "the model is in train mode: call model.eval(), or dropout and batch norm have a say")
    recount = torch.zeros(images, classes, dtype=torch.float64)
    recount.index_put_((rows, answers.argmax(1)), torch.ones(len(rows), dtype=torch.float64), accumulate=True)
    asked = bool((counts == n).all())
    yield need(asked and torch.equal(votes, recount), "counts the highest logit of each noisy copy, image by image",
               f"the model is shown {len(shown)} images: {n} noisy copies of each of {images}" if not asked else
               "the counts are not those of the model's answers to the noisy copies: which row, which class?", share=2)
    yield need(not net.gradients, "without gradients",
               "keeps a graph of every copy, which fills the memory: vote under torch.no_grad()")
    yield _another_time(net, lambda: mine(net, before.clone(), sigma, n, draw), shown)


def _another_time(net: NoiseWatcher, again: Callable[[], object], shown: Tensor) -> Observation:
    """Whether a second call with the same generator shows other noise."""
    net.forget()
    again()
    fresh = net.shown.shape != shown.shape or not torch.allclose(net.shown, shown, atol=1e-4)
    return need(fresh, "and the next time the noise is fresh",
                "a second call shows the same noise as the first: draw from the generator given, and do not seed")


def _noise_of_its_own(noise: Tensor, rows: Tensor) -> Iterator[Observation]:
    same = alike(noise)
    own = rows[:, None] == rows
    mistake = "shows an image the same noise again and again: draw for each copy" if (same & own).any() else \
        "all images of a batch get the same noise: draw it in the shape of x"
    yield need(not same.any(), "each copy of each image has its own noise", mistake, share=2)


# From votes to a certificate.


@step(points=3, shares=8, forbidden=_OWN)
def lower_bound(mine: Callable[..., float], task: CertifiedAccuracyTask = CertifiedAccuracyTask(),
                cases: Sequence[tuple[int, int, float]] = ((60, 100, 0.05), (95, 100, 0.001), (300, 500, 0.01)),
                ) -> Iterator[Observation]:
    """The bound: above the true share with probability α at most, and as large as that allows."""
    bounds = [mine(*case) for case in cases]
    if not all(is_number(bound) for bound in bounds):
        yield wrong(f"returns {bounds[0]!r}: return one number, the bound")
        return
    # That many hits or more would have probability α exactly if the share were the bound: no beta distribution here.
    tails = [float(binom.sf(hits - 1, n, bound)) for bound, (hits, n, _) in zip(bounds, cases, strict=True)]
    exact = all(abs(tail / alpha - 1) < 1e-3 for tail, (_, _, alpha) in zip(tails, cases, strict=True))
    hits, n, alpha = cases[0]
    yield need(exact, f"{hits} of {n} hits, α = {alpha:g}: the share is at least {bounds[0]:.4f}, one-sided and exact",
               f"{hits} of {n} hits, α = {alpha:g}: {bounds[0]:.4f} is not Clopper and Pearson's bound. "
               + _what_bound([float(bound) for bound in bounds], cases), share=4)
    honest = all(_too_high(mine, share, 40, 0.05) <= 0.05 + 1e-9 for share in (0.5, 0.7, 0.9, 0.97))
    yield need(honest, "never above the true share more often than α",
               "lies above the true share more often than α = 5 % (40 votes, shares .5, .7, .9 and .97)", share=2)
    all_hits = mine(n, n, alpha)
    yield need(is_number(all_hits) and abs(all_hits - alpha ** (1 / n)) < 1e-6, "where all agree: α to the 1/n",
               f"where all {n} votes agree the bound is {alpha ** (1 / n):.4f}, below 1, and not {all_hits:.4f}")
    none = mine(0, n, alpha)
    yield need(is_number(none) and none == 0, "where nobody votes for the class: 0",
               f"where no vote falls to the class the bound is 0, and not {none}: beta has no quantile there")


def _too_high(mine: Callable[..., float], share: float, n: int, alpha: float) -> float:
    """How often the bound lies above this share: summed over all counts of hits, not sampled."""
    hits = np.arange(n + 1)
    above = np.array([not mine(int(h), n, alpha) <= share for h in hits])
    return float(binom.pmf(hits, n, share)[above].sum())


def _what_bound(bounds: list[float], cases: Sequence[tuple[int, int, float]]) -> str:
    """Words for what was probably computed instead."""
    def all_are(other: Callable[[int, int, float], float]) -> bool:
        return all(abs(bound - other(*case)) < 1e-6 for bound, case in zip(bounds, cases, strict=True))

    def normal(z_of: float) -> Callable[[int, int, float], float]:
        return lambda h, n, a: h / n + float(norm.ppf(a / z_of)) * math.sqrt(h / n * (1 - h / n) / n)

    if all_are(lambda h, n, a: h / n):
        return "It is the share of the votes itself, which is too high about every second time"
    if all_are(lambda h, n, a: given.lower_bound(h, n, a / 2)):
        return "It is the lower end of a two-sided interval, made with α/2: only too high does harm, so all of α is " \
               "for that side"
    if all_are(normal(1)) or all_are(normal(2)):
        return "It is the normal approximation, which says too much for shares near 1: take a quantile of beta"
    if all_are(lambda h, n, a: given.lower_bound(h, n, 1 - a)):
        return "α is the probability to be wrong, and 1 − α was used in its place"
    if all_are(lambda h, n, a: given.lower_bound(h + 1, n, 1 - a)):
        return "It is the upper bound"
    if all(bound > h / n for bound, (h, n, _) in zip(bounds, cases, strict=True)):
        return "It lies above the share of the votes: a lower bound lies below. Is α mixed up with 1 − α?"
    return "It is the α-quantile of a beta distribution: which two parameters?"


@step(points=2, shares=5, forbidden=_OWN)
def certified_radius(mine: Callable[..., float], task: CertifiedAccuracyTask = CertifiedAccuracyTask(),
                     lowers: tuple[float, ...] = (0.6, 0.8, 0.93, 0.999),
                     sigmas: tuple[float, ...] = (0.25, 0.5)) -> Iterator[Observation]:
    """The radius: σ times the normal quantile of the bound, and none without a majority."""
    cases = [(lower, sigma) for lower in lowers for sigma in sigmas]
    found = [mine(*case) for case in cases]
    if not all(is_number(radius) for radius in found):
        yield wrong(f"returns {next(one for one in found if not is_number(one))!r}: return one number, the radius")
        return
    # Turned round: a normal variable stays below R/σ with probability `lower`.
    back = [(1 + math.erf(radius / sigma / math.sqrt(2))) / 2 for radius, (_, sigma) in zip(found, cases, strict=True)]
    exact = all(abs(share - lower) < 1e-6 for share, (lower, _) in zip(back, cases, strict=True))
    lower, sigma = cases[-1]
    yield need(exact, f"a share of at least {lower:g} under σ = {sigma:g}: R = {found[-1]:.3f}",
               f"a share of at least {lower:g} under σ = {sigma:g} gives R = {sigma * norm.ppf(lower):.3f}, and not "
               f"{found[-1]:.3f}. " + _what_radius([float(one) for one in found], cases), share=3)
    bare = [mine(low, sigmas[0]) for low in (0.5, 0.4, 0.05, 0.0)]
    fine = all(is_number(one) and one == 0 for one in bare)
    yield need(fine, "none without a majority", "where the share may be ½ or less nothing is certified: the radius is "
               f"0, and not {next((one for one in bare if one != 0), 0)}", share=2)


def _what_radius(found: list[float], cases: list[tuple[float, float]]) -> str:
    def all_are(other: Callable[[float, float], float]) -> bool:
        return all(abs(radius - other(*case)) < 1e-6 for radius, case in zip(found, cases, strict=True))

    if all_are(lambda low, sigma: float(norm.ppf(low))):
        return "σ is missing"
    if all_are(lambda low, sigma: sigma / 2 * float(norm.ppf(low))):
        return "It is half of that: the ½ belongs to the difference of two classes, Φ⁻¹(p) − Φ⁻¹(1 − p), which is " \
               "2Φ⁻¹(p)"
    if all_are(lambda low, sigma: 2 * sigma * float(norm.ppf(low))):
        return "It is twice that: with Φ⁻¹(p) − Φ⁻¹(1 − p) goes the factor σ/2"
    if all_are(lambda low, sigma: float(norm.ppf(low)) / 2) or all_are(lambda low, sigma: 2 * float(norm.ppf(low))):
        return "σ is missing, and a factor"
    if all_are(lambda low, sigma: sigma**2 * float(norm.ppf(low))):
        return "σ is squared"
    if all_are(lambda low, sigma: sigma * float(norm.cdf(low))):
        return "Φ was taken for its inverse: norm.ppf, not norm.cdf"
    return "It is σ times the quantile norm.ppf of the bound"


class _Script:
    """Votes that are known beforehand, by how many are asked for; it notes that."""

    def __init__(self, **counts: list[int]) -> None:
        self._counts, self.asked = {int(n[1:]): row for n, row in counts.items()}, list[int]()

    def __call__(self, n: int) -> Tensor:
        self.asked.append(int(n))
        if n not in self._counts:
            few, many = sorted(self._counts)
            raise ValueError(f"vote({n}) was asked for: n0 = {few} votes choose the class, n = {many} others bound it")
        return torch.tensor(self._counts[n])


@step(points=5, shares=12, forbidden=("certify", "statistics.py"))
def certify(mine: Callable[..., tuple[int, float]], task: CertifiedAccuracyTask = CertifiedAccuracyTask(),
            n0: int = 10, n: int = 1000, alpha: float = 0.01, runs: int = 600) -> Iterator[Observation]:
    """The certificate: n0 votes choose the class, n others bound its share, and without a majority it abstains."""
    sigma, third, few = task.sigmas[1], n * 74 // 100, n0 * 7 // 10

    def on(first: list[int], second: list[int]) -> tuple[int, float, list[int]]:
        script = _Script(**{f"_{n0}": first, f"_{n}": second})
        chosen, radius = mine(script, n0, n, alpha, sigma)
        return int(chosen), float(radius), sorted(script.asked)

    first = [n0 - few, few, 0]
    chosen, radius, asked = on(first, [n - third - 5, third, 5])
    expected = given.certified_radius(given.lower_bound(third, n, alpha), sigma)
    yield need(chosen == 1 and abs(radius - expected) < 1e-6, f"{third} of {n} votes: class 1, R = {radius:.3f}",
               f"class 1 has {third} of {n} votes, α = {alpha:g}, σ = {sigma:g}: R = {expected:.3f}, and not class "
               f"{chosen}, {radius:.3f}. " + _what_certificate(radius, third, few, n0, n, alpha, sigma), share=2)
    yield need(asked == [n0, n], f"asks for {n0} votes and for {n} others",
               f"asks for {' and '.join(map(str, asked)) or 'no'} votes: {n0} choose the class, and {n} others bound "
               "its share")
    # The n votes have another favourite: whoever lets them choose finds a certificate.
    chosen, radius, _ = on(first, [n * 9 // 10, n - n * 9 // 10, 0])
    yield need((chosen, radius) == (ABSTAINED, 0), "the votes that bound the share do not choose the class",
               f"n0 votes chose class 1, of {n} others a tenth fell to it, and class {chosen} came back: the class is "
               "chosen by the n0 votes and by nothing else" if chosen != ABSTAINED else
               f"an abstention is (−1, 0.0), and not ({chosen}, {radius})", share=2)
    chosen, radius, _ = on(first, [n - n * 51 // 100, n * 51 // 100, 0])
    yield need((chosen, radius) == (ABSTAINED, 0), "abstains where the majority is not sure",
               f"with 51 % of {n} votes the share may be below ½: return (−1, 0.0), and not ({chosen}, {radius:.3f})")
    chosen, radius, _ = on([0, n0, 0], [0, n, 0])
    ceiling = sigma * float(norm.ppf(alpha ** (1 / n)))
    yield need(chosen == 1 and abs(radius - ceiling) < 1e-6, f"where all {n} agree the radius is finite: {radius:.3f}",
               f"where all {n} votes agree the radius is {ceiling:.3f}, and not {radius:.3f}: even then the share is "
               "bounded below 1")
    yield from _at_a_tie(mine, task, runs)
    yield from _on_a_linear_model(mine, task)


def _what_certificate(radius: float, hits: int, few: int, n0: int, n: int, alpha: float, sigma: float) -> str:
    """Words for what was probably computed instead."""
    others = (
        (hits / n, "It is made of the share of the votes, not of its lower bound"),
        (given.lower_bound(hits, n, alpha / 2), "α was halved: the bound is one-sided"),
        (given.lower_bound(hits, n, 1 - alpha), "α is the probability to be wrong, and 1 − α was used in its place"),
        (given.lower_bound(hits + few, n + n0, alpha), "The votes that chose the class were counted again: n "
                                                       "fresh ones bound its share"),
        (given.lower_bound(few, n0, alpha), "It is made of the votes that chose the class"),
    )
    for lower, words in others:
        if abs(radius - given.certified_radius(lower, sigma)) < 1e-6:
            return words
    return "given.lower_bound, then given.certified_radius"


def _at_a_tie(mine: Callable[..., tuple[int, float]], task: CertifiedAccuracyTask, runs: int) -> Iterator[Observation]:
    """Two of ten classes with half of the votes each: no class has a majority, so that any certificate is wrong."""
    alpha, draw = 0.2, np.random.default_rng(1000 * task.variant + 6)
    shares = [0.0] * 4 + [0.5, 0.5] + [0.0] * 4
    false = sum(mine(lambda n: torch.from_numpy(draw.multinomial(n, shares)), 20, 100, alpha, 0.5)[0] != ABSTAINED
                for _ in range(runs))
    words = f"two classes with half of the votes each, α = 20 %: certificates in {false / runs:.0%} of {runs} runs"
    yield need(false / runs < 0.275, words, f"{words}, and each is false. Were class and bound made from the same "
               "votes, with their luck counted twice?", share=2)


def _on_a_linear_model(mine: Callable[..., tuple[int, float]], task: CertifiedAccuracyTask) -> Iterator[Observation]:
    """Where the distance to the boundary is known, and is the radius under every σ."""
    w = torch.randn(3, 8, 8, generator=task.generator(8))
    w = 2 * (w - w.mean()) / w.norm()
    distances, model, draw = torch.tensor([0.2, -0.3]), linear_classifier(w, 0.3), task.generator(9)
    x = points_at(distances, w, 0.3)
    far, near, right = 0.0, math.inf, True
    for image, distance in zip(x, distances.tolist(), strict=True):
        for sigma in (0.15, 0.3, 0.4):
            def vote(n: int, image: Tensor = image, sigma: float = sigma) -> Tensor:
                noisy = image + sigma * torch.randn(n, *image.shape, generator=draw)
                with torch.no_grad():
                    return torch.bincount(model(noisy).argmax(1), minlength=2)

            chosen, radius = mine(vote, 400, 4000, 1e-6, sigma)
            right &= chosen == int(distance > 0)
            far, near = max(far, radius / abs(distance)), min(near, radius / abs(distance))
    words = f"on a linear model, under three σ: {100 * near:.0f} to {100 * far:.0f} % of the distance |m|/‖w‖₂"
    yield need(right and far <= 1 and near > 0.6, words, f"{words}. A certificate reaches no farther than the boundary "
               "and, with 4,000 votes, nearly so far" if right else
               "on a linear model, where the distance is known, some class is not the model's", share=3)


# Certified accuracy.


@step(points=3, shares=5)
def certified_accuracy(mine: Callable[..., Tensor], task: CertifiedAccuracyTask = CertifiedAccuracyTask(),
                       n: int = 40) -> Iterator[Observation]:
    """The curve: which share of all images is right and certified, against radius."""
    draw = task.generator(5)
    y = torch.randint(10, (n,), generator=draw)
    prediction, radius = y.clone(), torch.rand(n, generator=draw, dtype=torch.float64)
    prediction[::5] = (y[::5] + 1) % 10  # certified, and wrong
    prediction[1::5], radius[1::5] = ABSTAINED, 0
    radii = torch.tensor([0, 0.05, 0.31, 0.52, 0.77, 1.2], dtype=torch.float64)
    inputs = prediction.clone(), radius.clone(), y.clone(), radii.clone()
    curve = torch.as_tensor(mine(*inputs)).double()
    if curve.shape != radii.shape:
        yield wrong(f"returns shape {tuple(curve.shape)}: one share for each radius, {tuple(radii.shape)}")
        return
    yield need((curve >= 0).all() and (curve <= 1).all() and (curve.diff() <= 1e-9).all(), "a share that never rises",
               "a share of images lies in [0, 1], and cannot rise with the radius: who is certified at .5 is so at .3")
    right, certain = prediction == y, prediction != ABSTAINED

    def share(counted: Tensor, of: int = n) -> Tensor:
        return torch.stack([(counted & (radius >= r)).sum() / of for r in radii]).double()

    # By count, image by image.
    expected = torch.tensor([sum(p == label and r >= at for p, r, label in zip(
        prediction.tolist(), radius.tolist(), y.tolist(), strict=True)) / n for at in radii.tolist()]).double()
    mistake = "these are not the shares of images that are right and certified at each radius"
    for other, words in (
            (share(certain), "counts images that are certified and wrong: certified accuracy minds the label"),
            (share(certain | ~certain), "counts images that abstained and images that are wrong: certified accuracy "
                                        "minds the label"),
            (share(right | ~certain), "counts abstentions as right: they count as wrong"),
            (share(right, int(certain.sum())), "divides by the images that did not abstain: the share is of all"),
            (share(right, int(right.sum())), "divides by the images that are right: the share is of all"),
            (torch.stack([(right & (radius <= r)).double().mean() for r in radii]),
             "counts radii up to the one asked about: certified at r means radius ≥ r"),
            (expected * n, "returns numbers of images: divide by the number of all")):
        if torch.allclose(curve, other, atol=1e-6) and not torch.allclose(other, expected):
            mistake = words
    yield need(torch.allclose(curve, expected, atol=1e-6), "counts who is right and certified, among all images",
               mistake, share=3)
    kept = all(torch.equal(a, b) for a, b in zip(inputs, (prediction, radius, y, radii), strict=True))
    yield need(kept, "what it is given stays as it was", "changes the tensors it was given")


_Curves = tuple[list[float], list[float], list[float]]
_CURVES: tuple[_Curves, ...] = (
    ([0.8, 0.6, 0.6, 0.4, 0.0, 0.0, 0.0], [0.8, 0.55, 0.6, 0.3, 0.3, 0.2, 0.0], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    ([0.7, 0.5, 0.4, 0.1], [0.6, 0.5, 0.45, 0.2], [0, 0.25, 0.5, 0.75]),
)


@step(points=2, shares=4)
def larger_wins(mine: Callable[..., float], task: CertifiedAccuracyTask = CertifiedAccuracyTask(),
                curves: Sequence[_Curves] = _CURVES) -> Iterator[Observation]:
    """Where the larger σ wins: the first radius at which it certifies more, infinity where it never does."""
    for small, large, radii in curves:
        found = mine(*(torch.tensor(one, dtype=torch.float64) for one in (small, large, radii)))
        places = [r for s, one, r in zip(small, large, radii, strict=True) if one > s]
        met = [r for s, one, r in zip(small, large, radii, strict=True) if one >= s]
        if not is_number(found, finite=False):
            yield wrong(f"returns {found!r}: return one number, a radius")
            return
        mistake = f"the larger σ certifies more from radius {places[0]:g} on, and not from {float(found):g}"
        if abs(float(found) - met[0]) < 1e-6:
            mistake += ": as many is not more"
        elif abs(float(found) - radii.index(places[0])) < 1e-6:
            mistake += ": that is its place in the list, and the radius is asked for"
        yield need(abs(float(found) - places[0]) < 1e-6, f"from {places[0]:g} on it certifies more", mistake,
                   share=1 / len(curves))
    flat = torch.tensor([0.5, 0.2, 0.0], dtype=torch.float64)
    never = mine(flat, flat - torch.tensor([0.1, 0.1, 0.0]), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    yield need(is_number(never, finite=False) and float(never) == math.inf, "infinity where it never does",
               f"where the larger σ never certifies more, return math.inf, not {never}: argmax of nothing true is 0")
    (below, above), (low, high) = (_curve(task, sigma) for sigma in task.sigmas), task.sigmas
    where = float(mine(below.clone(), above.clone(), task.radii))
    right = next((float(r) for r, more in zip(task.radii, above > below, strict=True) if more), math.inf)
    words = f"of {task.images} road signs σ = {high:g} certifies more than σ = {low:g} first at R = {where:.2f}"
    same = where == right or abs(where - right) < 1e-6
    yield need(same, words, f"{words}, and the curves say R = {right:.2f}", share=2)


def _curve(task: CertifiedAccuracyTask, sigma: float) -> Tensor:
    (prediction, radius), (_, y) = task.voted(sigma), task.data()
    return ((prediction == y) & (radius >= task.radii[:, None])).double().mean(1)


# The sandwich.


class _OnlyUnderNoise(nn.Module):
    """Reads noisy images as another model does, and smooth ones the wrong way round."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x.float())
        rough = (x[..., 1:] - x[..., :-1]).abs().flatten(1).mean(1)
        return torch.where(rough[:, None] > 0.1, scores, scores.flip(1))


@step(points=3, shares=8)
def attacked_accuracy(mine: Callable[..., float], task: CertifiedAccuracyTask = CertifiedAccuracyTask(),
                      distances: tuple[float, ...] = (0.1, 0.1, 0.3, 0.5, 0.7),
                      reach: tuple[float, ...] = (0.2, 0.6)) -> Iterator[Observation]:
    """The other side of the sandwich: the smoothed classifier's accuracy under an L2 attack on it."""
    w = torch.randn(3, 8, 8, generator=task.generator(10))
    w, sigma = (w - w.mean()) / w.norm(), 0.1  # little beside the distances: luck in a few draws moves no image
    signs = torch.tensor([(-1.0) ** i for i in range(len(distances))])
    model, x, y = linear_classifier(w), points_at(signs * torch.tensor(distances), w), (signs > 0).long()
    mine = _repeatable(mine, task)
    found = [mine(model, x, y, sigma, eps, 300, task.generator(11)) for eps in reach]
    if not all(is_number(one) and 0 <= float(one) <= 1 for one in found):
        yield wrong(f"returns {found[0]!r}: return a share of images, one number from 0 to 1")
        return
    for share, eps in zip(found, reach, strict=True):
        true = sum(distance > eps for distance in distances) / len(distances)
        words = f"on a linear model, ε = {eps:g}: {float(share):.0%} stay right"
        yield need(abs(float(share) - true) < 1e-6, words, f"{words}, and {true:.0%} lie farther than ε from the "
                   "boundary. " + _what_attack(float(share), true), share=2)
    rough = _OnlyUnderNoise(model).eval()
    far, label = points_at(torch.tensor([0.8, -0.8]), w), torch.tensor([1, 0])
    share = float(mine(rough, far, label, 0.25, 0.01, 300, task.generator(12)))
    yield need(share == 1, "judged by votes under noise, as the certificate is",
               "a net that is right under noise alone was judged without noise: the certificate is the smoothed "
               "classifier's, so take the majority of votes at the attacked images", share=2)
    yield from _sandwiched(mine, task)


def _repeatable(attack: Callable[..., Any], task: CertifiedAccuracyTask) -> Callable[..., Any]:
    """The same attack, with what it draws from torch's own generator always alike."""
    def seeded(*given_to: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * task.variant)
            return attack(*given_to)

    return seeded


def _what_attack(share: float, true: float) -> str:
    if share == 1:
        return "Was nothing attacked, or the clean images judged?"
    if abs(share - (1 - true)) < 1e-6:
        return "It is the share that the attack broke: accuracy is what is left"
    return "An L∞ ball is far larger than an L2 ball of the same ε" if share < true else \
        "The attack is too weak: did it stop at its first, lucky success?"


def _sandwiched(mine: Callable[..., float], task: CertifiedAccuracyTask) -> Iterator[Observation]:
    """On road signs: no fewer stay right than are certified, and about as few as with an attack of the library's."""
    sigma, n = task.sigmas[0], 8
    eps, (x, y), model = 1.5 * sigma, task.data(), task.model(sigma)
    prediction, radius = task.voted(sigma)
    certified = ((prediction == y) & (radius >= eps))[:n].double().mean().item()
    share = float(mine(model, x[:n], y[:n], sigma, eps, 100, task.generator(13)))
    peers = _librarys(task, eps, n)
    words = f"{n} road signs at ε = {eps:g}: {certified:.0%} certified ≤ {share:.0%} stay right under attack"
    yield need(certified <= share <= peers + 0.3, words,
               f"{words}: what is certified cannot be broken" if share < certified else
               f"{words}, and {peers:.0%} under PGD with 10 steps: the attack is too weak", share=2)


@lru_cache(maxsize=8)
def _librarys(task: CertifiedAccuracyTask, eps: float, n: int) -> float:
    """The share of the first n images that stays right under PGD on the smoothed classifier, for the smaller σ."""
    sigma, (x, y) = task.sigmas[0], task.data()
    model, attack = task.model(sigma), PGD(ThreatModel("l2", eps), steps=10, stop="never")
    x_adv = _repeatable(attack, task)(SmoothedClassifier(model, sigma, 16), x[:n], y[:n])
    votes = given.count_votes(model, x_adv, sigma, 100, task.generator(14))
    return (votes.argmax(1) == y[:n]).double().mean().item()


def sandwich(certified: Callable[..., Tensor], attacked: Callable[..., float],
             task: CertifiedAccuracyTask = CertifiedAccuracyTask(), n: int = 16) -> dict[str, Any]:
    """For the picture: one's own curves of certified accuracy by σ, and one's own attack on the first n images under
    the smaller σ at four ε, beside the share of these images that is certified at each radius."""
    x, y = task.data()
    certified(y[:1], torch.ones(1), y[:1], task.radii)  # what is not written yet says so before votes are counted
    curves = {sigma: certified(*task.voted(sigma), y, task.radii) for sigma in task.sigmas}
    sigma = task.sigmas[0]
    prediction, radius = task.voted(sigma)
    epsilons = [0.5 * sigma, sigma, 1.5 * sigma, 2 * sigma]
    attacked = _repeatable(attacked, task)
    left = [attacked(task.model(sigma), x[:n], y[:n], sigma, eps, 100, task.generator(15)) for eps in epsilons]
    below = certified(prediction[:n], radius[:n], y[:n], task.radii)
    return {"curves": curves, "epsilons": epsilons, "attacked": left, "certified": below}
