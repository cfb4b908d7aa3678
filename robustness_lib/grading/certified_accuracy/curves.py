"""Checks of `certified_accuracy` on curves of certified accuracy against radius."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from robustness_lib.certify import ABSTAINED
from robustness_lib.grading.certified_accuracy.variants import FIRST, CertifiedAccuracyTask
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import is_number
from robustness_lib.grading.steps import step

__all__ = ["certified_accuracy", "larger_wins"]


@step(points=3, shares=5)
def certified_accuracy(mine: Callable[..., Tensor], task: CertifiedAccuracyTask = FIRST,
                       n: int = 40) -> Iterator[Observation]:
    """The curve: which share of all images is right and certified, against radius."""
    draw = task.generator(5)
    y = torch.randint(10, (n,), generator=draw)
    prediction, radius = y.clone(), torch.rand(n, generator=draw, dtype=torch.float64)
    prediction[::5] = (y[::5] + 1) % 10  # certified, and wrong
    prediction[1::5], radius[1::5] = ABSTAINED, 0
    radii = torch.tensor([0, 0.05, 0.31, 0.52, 0.77, 1.2], dtype=torch.float64)
    radius[2], radius[7] = radii[2], radii[4]  # right, and certified to one of these radii exactly
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
            (torch.stack([(right & (radius > r)).double().mean() for r in radii]),
             "leaves out images whose radius is the one asked about: certified at r means radius ≥ r"),
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
def larger_wins(mine: Callable[..., float], task: CertifiedAccuracyTask = FIRST,
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
