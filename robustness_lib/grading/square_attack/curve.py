"""Checks of `square_attack` on the curve of images broken against queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.square_attack.variants import FIRST, SquareTask
from robustness_lib.grading.steps import step

__all__ = ["broken_within"]


@step(points=2, shares=4)
def broken_within(mine: Callable[..., Tensor], task: SquareTask = FIRST, n: int = 40) -> Iterator[Observation]:
    """The curve: which share of the images was broken by at most so many queries."""
    first = torch.randint(1, 200, (n,), generator=task.generator())
    first[::4] = 0  # never
    budgets = torch.tensor([0, 1, 10, int(first[1]), 100, 200]).sort().values
    curve = torch.as_tensor(mine(first.clone(), budgets.clone())).double()
    if curve.shape != budgets.shape:
        yield wrong(f"returns shape {tuple(curve.shape)}: one share for each budget, {tuple(budgets.shape)}")
        return
    right = torch.stack([((first > 0) & (first <= budget)).double().mean() for budget in budgets])
    of_solved = right * n / (first > 0).sum()
    with_never = torch.stack([(first <= budget).double().mean() for budget in budgets])
    early = torch.stack([((first > 0) & (first < budget)).double().mean() for budget in budgets])
    yield need((curve >= 0).all() and (curve <= 1).all() and (curve.diff() >= -1e-9).all(), "a share that never falls",
               "a share of images lies in [0, 1] and cannot fall when there are more queries")
    mistake = "these are not the shares of images that were broken within each budget"
    for other, words in ((of_solved, "divides by the images that were solved: the share is of all images"),
                         (with_never, "counts images that were never solved (0) as solved at once"),
                         (early, "leaves out images that were solved by the very last query: at most means ≤")):
        if torch.allclose(curve, other, atol=1e-6) and not torch.allclose(other, right):
            mistake = words
    yield need(torch.allclose(curve, right, atol=1e-6), "counts who was solved within each budget, among all", mistake,
               share=3)
