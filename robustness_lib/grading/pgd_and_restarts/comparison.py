"""Checks of `pgd_and_restarts` on what restarts say: accuracy after each, and which attack is stronger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Generator, Tensor

from robustness_lib.grading.given import pgd_and_restarts as given
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.pgd_and_restarts.variants import FIRST, PgdAndRestartsTask
from robustness_lib.grading.returned_values import misread
from robustness_lib.grading.steps import step
from robustness_lib.statistics import mcnemar

__all__ = ["accuracy_after", "stronger"]


@step(points=2, shares=4)
def accuracy_after(mine: Callable[..., Tensor], task: PgdAndRestartsTask = FIRST, n: int = 50,
                   restarts: int = 6) -> Iterator[Observation]:
    """The accuracy after 1, 2, ... restarts: an image is right as long as none of them broke it."""
    draw = task.generator()
    broken = torch.rand(restarts, n, generator=draw) < 0.6 * torch.rand(n, generator=draw)
    found = torch.as_tensor(mine(broken.clone())).double()
    if found.shape != (restarts,):
        yield wrong(f"returns shape {tuple(found.shape)}: one accuracy after each of {restarts} restarts")
        return
    share = broken.double().mean(1)
    right = 1 - broken.cummax(0).values.double().mean(1)
    yield need((found >= 0).all() and (found <= 1).all() and (found.diff() < 1e-9).all(), "never rises",
               "rises, or leaves [0, 1]: a further restart can only break more images")
    mistake = "these are not the shares of images that no restart so far has broken"
    for other, words in (
            (1 - right, "these are the shares of broken images: accuracy is the rest"),
            (1 - share, "each restart by itself: an image that an earlier restart broke stays broken"),
            ((1 - share).cummin(0).values, "takes the best restart so far: restarts break different images, so put "
             "together which ones they broke"),
            ((1 - share).cumsum(0) / torch.arange(1, restarts + 1), "averages over the restarts: the attacker needs "
             "one that works, so an image counts as broken if any restart broke it"),
            ((1 - share).mean().expand(restarts), "averages over the restarts: the attacker needs one that works, so "
             "an image counts as broken if any restart broke it"),
            ((1 - share[-1]).expand(restarts), "counts the last restart only"),
            (right[-1].expand(restarts), "gives what is left in the end after each restart: the first knows nothing of "
             "the others"),
            (1 - broken.cummin(0).values.double().mean(1), "counts an image as broken only if every restart broke it: "
             "one is enough")):
        if torch.allclose(found, other, atol=1e-6):
            mistake = words
    yield need(torch.allclose(found, right, atol=1e-6), "an image is right as long as no restart broke it", mistake,
               share=3)


_CASES = (  # broken by the first alone, by the second alone, by both, by neither, and what can be said
    (12, 2, 20, 26, "first"), (2, 12, 20, 26, "second"), (5, 2, 30, 23, "cannot tell"), (9, 1, 40, 40, "first"),
    (1, 9, 40, 40, "second"), (7, 1, 10, 42, "cannot tell"), (0, 0, 31, 29, "cannot tell"),
    (15, 14, 10, 21, "cannot tell"))

_MORE_CASES = ((11, 1, 50, 60, "first"), (0, 7, 44, 40, "second"), (1, 7, 10, 70, "cannot tell"),
               (3, 0, 30, 40, "cannot tell"), (20, 6, 100, 90, "first"), (24, 40, 60, 55, "cannot tell"),
               (0, 5, 20, 20, "cannot tell"), (2, 14, 60, 60, "second"))


@step(points=2, shares=6)
def stronger(mine: Callable[..., str], task: PgdAndRestartsTask = FIRST, more: bool = False,
             measure: bool = True) -> Iterator[Observation]:
    """Which of two attacks breaks more, on the same images; and when one cannot tell."""
    seen = {case: mine(*_columns(case, task.generator())) for case in (_MORE_CASES if more else _CASES)}
    odd = [answer for answer in seen.values()
           if not isinstance(answer, str) or answer not in ("first", "second", "cannot tell")]
    if odd:
        yield wrong(f'returns {odd[0]!r}: return "first", "second" or "cannot tell"')
        return
    tell = {case: answer for case, answer in seen.items() if case[4] != "cannot tell"}
    swapped = bool(tell) and all({answer, case[4]} == {"first", "second"} for case, answer in tell.items())
    shy = [case for case, answer in tell.items() if answer == "cannot tell"]
    yield need(all(answer == case[4] for case, answer in tell.items()), "names the stronger one where one can tell",
               "names the weaker one: who breaks more images that the other does not is the stronger" if swapped else
               _too_shy(shy[0]) if shy else "names the wrong one of some pairs of attacks", share=2)
    bold = [case for case, answer in seen.items() if case[4] == "cannot tell" != answer]
    yield need(not bold, "and says so where one cannot", _too_bold(bold[0]) if bold else "", share=3)
    if not measure:
        yield need(True, "on pairs of attacks that the notebook does not show", "")
        return
    one, five = _equal_cost(task.variant % len(task.variants))
    only_one, only_five = int((one & ~five).sum()), int((five & ~one).sum())
    p = mcnemar(only_one, only_five)
    right = "cannot tell" if p >= 0.05 else "first" if only_one > only_five else "second"
    answer = mine(one.clone(), five.clone())
    words = (f"{task.name}, {len(one)} images: 1 × 100 steps broke {int(one.sum())}, 5 × 20 broke {int(five.sum())}; "
             f"alone {only_one} and {only_five}, p = {p:.2g}: {answer}")
    yield need(answer == right, words, f"{words}, and it should be: {right}")


def _columns(case: tuple[int, int, int, int, str], draw: Generator) -> tuple[Tensor, Tensor]:
    """Which images two attacks broke, (N,) bool each, in some order."""
    kinds = torch.repeat_interleave(torch.arange(4), torch.tensor(case[:4]))
    kinds = kinds[torch.randperm(len(kinds), generator=draw)]
    return (kinds == 0) | (kinds == 2), (kinds == 1) | (kinds == 2)


def _too_shy(case: tuple[int, int, int, int, str]) -> str:
    p = mcnemar(case[0], case[1])
    return (f"cannot tell, it says, where {case[0]} images fall to the first alone and {case[1]} to the second alone: "
            f"p = {p:.2g}. The images are the same, so compare them one by one; what both broke says nothing")


def _too_bold(case: tuple[int, int, int, int, str]) -> str:
    p = mcnemar(case[0], case[1])
    return (f"names a winner where {case[0]} images fall to the first alone and {case[1]} to the second alone: p = "
            f"{p:.2g}, two-sided, so luck would do that as well. Below .05 one can tell")


@cache
def _equal_cost(variant: int) -> tuple[Tensor, Tensor]:
    """Which images 1 walk of 100 steps breaks, and 5 walks of 20."""
    task = PgdAndRestartsTask(variant)
    (x, y), model = task.data(), task.model()
    one, five = (given.pgd_with_restarts(model, x, y, task.eps / 2, steps, restarts, task.generator(steps))
                 for steps, restarts in ((100, 1), (20, 5)))
    return misread(model, one, y), misread(model, five, y)
