"""Checks of `break_the_defence` on counts of images that stand: by most of their answers, and under all attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from robustness_lib.defenses import BitDepth
from robustness_lib.grading.break_the_defence.random_answers import InTurn
from robustness_lib.grading.break_the_defence.variants import FIRST, FORBIDDEN, DefenseTask
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import not_of_shape
from robustness_lib.grading.steps import step

__all__ = ["stands", "three_bars"]


@step(points=3, shares=6, forbidden=FORBIDDEN)
def stands(mine: Callable[..., Tensor], task: DefenseTask = FIRST, n: int = 24,
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
    if (ending := not_of_shape(found, (n,), "one truth value for each image")) is not None:
        yield ending
        return
    assert isinstance(found, Tensor)
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


@step(points=2, shares=6, forbidden=("attacks",))
def three_bars(mine: Callable[..., Any], task: DefenseTask = FIRST, n: int = 40,
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
