"""Checks of `certified_accuracy` on the certificate: from votes to a class with a radius, or to none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from robustness_lib.certify import ABSTAINED
from robustness_lib.grading.certified_accuracy.variants import FIRST, CertifiedAccuracyTask
from robustness_lib.grading.given import certified_accuracy as given
from robustness_lib.grading.linear_models import linear_classifier, points_at
from robustness_lib.grading.observations import Observation, need
from robustness_lib.grading.steps import step

__all__ = ["certify"]


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
def certify(mine: Callable[..., tuple[int, float]], task: CertifiedAccuracyTask = FIRST,
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
