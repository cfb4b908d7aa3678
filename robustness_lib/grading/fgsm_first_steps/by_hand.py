"""Checks of `fgsm_first_steps` on the linear model, which can be solved by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustness_lib.grading.fgsm_first_steps.variants import FIRST, FgsmFirstStepsTask
from robustness_lib.grading.library_calls import ATTACKING
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.steps import step

__all__ = ["margin_drops", "smallest_eps"]


@step(points=1, shares=2, forbidden=ATTACKING)
def margin_drops(mine: Callable[..., tuple[float, float]], task: FgsmFirstStepsTask = FIRST,
                 w: tuple[float, ...] = (2.0, -1.0), eps: float = 0.1) -> Iterator[Observation]:
    """By how much the margin w·x falls at most: ε‖w‖₁ in the square, ε‖w‖₂ in the circle."""
    given_w = torch.tensor(w)
    found = mine(given_w.clone(), eps)
    if not isinstance(found, tuple | list) or len(found) != 2:
        yield wrong("returns no pair: return two numbers, the fall in L∞ and the fall in L2")
        return
    square, circle = (float(value) for value in found)
    l1, l2 = sum(abs(value) for value in w), math.hypot(*w)
    yield need(math.isclose(square, eps * l1, rel_tol=1e-4), f"L∞: the margin falls by {eps * l1:.3g}",
               f"L∞: {square:.3g}, and it is {eps * l1:.3g}. " + _which_fall(square / eps, "L∞", w))
    yield need(math.isclose(circle, eps * l2, rel_tol=1e-4), f"L2: the margin falls by {eps * l2:.3g}",
               f"L2: {circle:.3g}, and it is {eps * l2:.3g}. " + _which_fall(circle / eps, "L2", w))


def _which_fall(found: float, norm: str, w: tuple[float, ...]) -> str:
    """What a wrong fall is instead, divided by ε."""
    l1, l2 = sum(abs(value) for value in w), math.hypot(*w)
    is_it = {"the two are swapped": l2 if norm == "L∞" else l1,
             "a fall is counted as a positive number": -l1 if norm == "L∞" else -l2,
             "each pixel moves against its own weight, so that |w| is added up and not w": sum(w),
             "all pixels move, not only the one of the largest weight": max(abs(value) for value in w),
             "a root is missing: the length of w is √(w·w)": l2**2,
             "in the circle not every pixel can move by ε at once": l2 * math.sqrt(len(w))}
    for words, value in is_it.items():
        if math.isclose(found, value, rel_tol=1e-4):
            return words
    return "Write down δ, pixel by pixel, and then w·δ"


@step(points=2, shares=4, forbidden=ATTACKING)
def smallest_eps(mine: Callable[..., Tensor], task: FgsmFirstStepsTask = FIRST,
                 shape: tuple[int, int] = (12, 6)) -> Iterator[Observation]:
    """The linear model, where one step is exact: |m| / ‖w‖₁ flips the answer, and what is wrong needs nothing."""
    draw = task.generator()
    x = torch.rand(shape, generator=draw, dtype=torch.float64)
    w = torch.randn(shape[1], generator=draw, dtype=torch.float64)
    w[:3] = torch.tensor([1.5, -0.7, 0.0])
    b = 0.15 - (x @ w).median()
    score = x @ w + b
    y = (score > 0).long()
    misread = torch.arange(shape[0]) % 4 == 3
    y[misread] = 1 - y[misread]
    found = torch.as_tensor(mine(x.clone(), y.clone(), w.clone(), b.clone())).double()
    if found.shape != y.shape:
        yield wrong(f"returns shape {tuple(found.shape)}: one ε for each image, {tuple(y.shape)}")
        return
    right = score.abs() / w.abs().sum()
    read = ~misread
    mistake = _which_eps(found[read], x[read], y[read], w, b)
    yield need(torch.allclose(found[read], right[read], rtol=1e-4), "|m| / ‖w‖₁, where the model is right", mistake,
               share=3)
    yield need((found[misread].abs() < 1e-9).all(), "and 0 where it is wrong already",
               "an image that is misread needs no change: its smallest ε is 0, and .clamp(min=0) says so")


def _which_eps(found: Tensor, x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> str:
    """What was computed instead of the smallest ε in L∞."""
    score = x @ w + b
    for other, words in (
            (score.abs() / w.norm(), "this is the smallest change in L2: in L∞ divide by ‖w‖₁, the sum of all |w|"),
            (score.abs() / w.abs().max(), "divides by the largest |w|: in L∞ all pixels move, so divide by their sum"),
            (score.abs() / w.sum(), "divides by the sum of w: weights of both signs cancel, so add up |w|"),
            (score.abs() / w.sum().abs(), "divides by the sum of w: weights of both signs cancel, so add up |w|"),
            ((x @ w).abs() / w.abs().sum(), "leaves out b: the margin is w·x + b"),
            (score.abs(), "this is the margin: a step of ε lowers it by ε‖w‖₁, so divide"),
            (score / w.abs().sum(), "on images of class 0 the score is negative and the model right: turn its sign"),
            ((score / w.abs().sum()).clamp(min=0), "on images of class 0 the score is negative and the model right: "
             "turn its sign")):
        if torch.allclose(found, other, rtol=1e-4):
            return words
    return "these are not the smallest ε that flip the answers: a step of ε lowers the margin by ε‖w‖₁, down to 0"
