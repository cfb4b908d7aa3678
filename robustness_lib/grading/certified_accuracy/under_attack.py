"""Checks of `certified_accuracy` on the other side of the sandwich: accuracy under an attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.attacks import PGD
from robustness_lib.certify import SmoothedClassifier
from robustness_lib.grading.certified_accuracy.variants import FIRST, CertifiedAccuracyTask
from robustness_lib.grading.given import certified_accuracy as given
from robustness_lib.grading.linear_models import linear_classifier, points_at
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import is_number
from robustness_lib.grading.steps import step
from robustness_lib.grading.watched_model import WatchedModel
from robustness_lib.threat import ThreatModel

__all__ = ["attacked_accuracy", "repeatable"]


_VOTES = 300, 200  # on a linear model, for the first ε and the second


class _OnlyUnderNoise(nn.Module):
    """Reads noisy images as another model does, and smooth ones the wrong way round."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x.float())
        rough = (x[..., 1:] - x[..., :-1]).abs().flatten(1).mean(1)
        return torch.where(rough[:, None] > 0.1, scores, scores.flip(1))


@step(points=3, shares=12)
def attacked_accuracy(mine: Callable[..., float], task: CertifiedAccuracyTask = FIRST,
                      distances: tuple[float, ...] = (0.1, 0.1, 0.3, 0.5, 0.7),
                      reach: tuple[float, ...] = (0.2, 0.6)) -> Iterator[Observation]:
    """The other side of the sandwich: the smoothed classifier's accuracy under an L2 attack on it."""
    w = torch.randn(3, 8, 8, generator=task.generator(10))
    w, sigma = (w - w.mean()) / w.norm(), 0.1  # little beside the distances: luck in a few draws moves no image
    signs = torch.tensor([(-1.0) ** i for i in range(len(distances))])
    model, x, y = linear_classifier(w), points_at(signs * torch.tensor(distances), w), (signs > 0).long()
    mine, watched = repeatable(mine, task), [WatchedModel(model) for _ in reach]
    found = [mine(asked, x, y, sigma, eps, n, task.generator(11))
             for asked, eps, n in zip(watched, reach, _VOTES, strict=True)]
    if not any(asked.shown for asked in watched):
        yield wrong("never asks the model: the share follows from its answers")
        return
    if not all(is_number(one) and 0 <= float(one) <= 1 for one in found):
        yield wrong(f"returns {found[0]!r}: return a share of images, one number from 0 to 1")
        return
    for share, eps in zip(found, reach, strict=True):
        true = sum(distance > eps for distance in distances) / len(distances)
        words = f"on a linear model, ε = {eps:g}: {float(share):.0%} stay right"
        yield need(abs(float(share) - true) < 1e-6, words, f"{words}, and {true:.0%} lie farther than ε from the "
                   "boundary. " + _what_attack(float(share), true), share=2)
    if all(share == 1 for share in found):
        return  # nothing was attacked: there is nothing more to look at
    yield from _asks_the_smoothed(watched, w, sigma)
    rough = _OnlyUnderNoise(model).eval()
    far, label = points_at(torch.tensor([0.8, -0.8]), w), torch.tensor([1, 0])
    share = float(mine(rough, far, label, 0.25, 0.01, 300, task.generator(12)))
    yield need(share == 1, "judged by votes under noise, as the certificate is",
               "a net that is right under noise alone was judged without noise: the certificate is the smoothed "
               "classifier's, so take the majority of votes at the attacked images", share=2)
    yield from _sandwiched(mine, task)


def _asks_the_smoothed(watched: list[WatchedModel], w: Tensor, sigma: float) -> Iterator[Observation]:
    """Four shares: the attack sees noise, 16 samples in each of 10 steps, and as many copies vote as were asked for.
    watched: linear models with weights w that were asked in one run each, with `_VOTES` votes. On these an attack moves
    images along w, so that what lies across is noise, apart from the attack's start."""
    images, path = len(watched[0].shown[0]), watched[0].path
    if not path:
        yield wrong("asks the model for no gradient: attack the smoothed classifier with PGD")
        return
    seen = torch.cat([batch.flatten(1).float() for batch in path]) - 0.5
    across = seen - (seen @ w.flatten())[:, None] * w.flatten()
    spread = across.square().mean().sqrt().item()
    yield need(abs(spread / sigma - 1) < 0.15, "the attack sees the classifier that was certified, under noise",
               "the attack sees no noise: it attacks the bare network, and what was certified is the smoothed "
               "classifier. Attack RandomizedSmoothing(model, sigma).classifier(samples=16)" if spread < sigma / 2 else
               f"the attack sees noise of standard deviation {spread:.2f} where σ = {sigma:g}", share=2)
    asked = len(seen) / images
    yield need(asked >= 160, "16 samples in each of 10 steps",
               f"the attack follows {asked:g} answers to each image, and 16 samples in each of 10 steps are 160")
    votes = [(sum(map(len, one.shown)) - sum(map(len, one.path))) / images for one in watched]
    more = _VOTES[0] - _VOTES[1]
    yield need(votes[0] - votes[1] == more, "n votes judge each image",
               f"with n = {_VOTES[0]} an image is judged by {votes[0] - votes[1]:g} votes more than with n = "
               f"{_VOTES[1]}, and not by {more}: take n votes at each attacked image")


def repeatable(attack: Callable[..., Any], task: CertifiedAccuracyTask) -> Callable[..., Any]:
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
    x_adv = repeatable(attack, task)(SmoothedClassifier(model, sigma, 16), x[:n], y[:n])
    votes = given.count_votes(model, x_adv, sigma, 100, task.generator(14))
    return (votes.argmax(1) == y[:n]).double().mean().item()
