"""Checks of `square_attack` on the rule of acceptance, and on the loop with its count of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from robustness_lib.attacks import PGD, SquareAttack
from robustness_lib.defenses import BitDepth
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import SLACK, in_box, misread, within
from robustness_lib.grading.square_attack.counted_runs import CountedRun, counted_run
from robustness_lib.grading.square_attack.variants import FIRST, FORBIDDEN, SquareTask
from robustness_lib.grading.steps import step
from robustness_lib.losses import margin_loss
from robustness_lib.threat import ThreatModel

__all__ = ["accept", "attack", "masked"]


@step(points=2, shares=5, forbidden=FORBIDDEN)
def accept(mine: Callable[..., tuple[Tensor, Tensor]], task: SquareTask = FIRST,
           n: int = 12) -> Iterator[Observation]:
    """The rule: keep a proposal where its loss is larger, and only there."""
    draw = task.generator()
    old, new = torch.rand(n, 3, 4, 4, generator=draw), torch.rand(n, 3, 4, 4, generator=draw)
    loss = torch.linspace(-2, 1, n)
    change = torch.where(torch.rand(n, generator=draw) < 0.5, 1.0, -1.0)
    change[:2] = torch.tensor([1.0, -1.0])
    new_loss = loss + 0.1 * change
    inputs = old.clone(), loss.clone(), new.clone(), new_loss.clone()
    kept, value = mine(*inputs)
    if kept.shape != old.shape or value.shape != loss.shape:
        yield wrong(f"returns shapes {tuple(kept.shape)} and {tuple(value.shape)}: the points and their "
                    f"losses have {tuple(old.shape)} and {tuple(loss.shape)}")
        return
    took = [bool(torch.equal(kept[i], new[i])) for i in range(n)]
    stayed = [bool(torch.equal(kept[i], old[i])) for i in range(n)]
    rises = (change > 0).tolist()
    fell_taken = any(t for t, up in zip(took, rises, strict=True) if not up)
    rose_left = any(s for s, up in zip(stayed, rises, strict=True) if up)
    neither = not all(t or s for t, s in zip(took, stayed, strict=True))
    yield need(not rose_left and not neither, "takes a proposal where the loss rises",
               "mixes two points of an image: take the whole of one" if neither else
               "leaves a proposal whose loss is larger: decide for each image by itself", share=1.5)
    yield need(not fell_taken and not neither, "leaves a proposal where the loss falls",
               "takes every proposal: decide for each image by itself, and leave those whose loss is smaller"
               if all(took) else
               "takes a proposal whose loss is smaller: decide for each image by itself, and mind the direction",
               share=1.5)
    best = torch.maximum(loss, new_loss)
    yield need((value - best).abs().max() < 1e-6, "hands on the loss of what it kept",
               "the loss that it returns is not that of the points it kept")
    same = all(torch.equal(a, b) for a, b in zip(inputs, (old, loss, new, new_loss), strict=True))
    yield need(same, "what it is given stays as it was", "changes the tensors it was given")


@step(points=6, shares=20, forbidden=("attacks",))
def attack(mine: Callable[..., Tensor], task: SquareTask = FIRST) -> Iterator[Observation]:
    """The loop: on all images within ε and the box, no query too many, none wasted, and about as good as it gets."""
    (x, y), model = task.data(), task.model()
    runs = []
    for seed in range(task.seeds):
        run = counted_run(mine, model, x, y, task, seed)
        if isinstance(run, Observation):
            yield run
            return
        runs.append(run)
    farthest = max(run.farthest for run in runs)
    trick = next((trick for run in runs if (trick := run.trick)), None)
    if trick is not None and farthest <= task.eps * (1 + SLACK) + 1e-6:
        yield wrong(trick)
        return
    yield from _kept_to_the_rules(runs, farthest, task)
    if all(int(run.asked.queries.max()) == 1 for run in runs):
        yield wrong(f"asks once about each image, and {task.queries} queries are allowed: the search is yet to come")
        return
    yield from _asked_as_it_should(runs, task)
    yield from _wasted_nothing(runs, model, y)
    yield from _as_good_as_the_library(runs, task)


def _kept_to_the_rules(runs: list[CountedRun], farthest: float, task: SquareTask) -> Iterator[Observation]:
    """Ball, box and budget, on all images. Two shares."""
    most = max(int(run.asked.queries.max()) for run in runs)
    yield need(most <= task.queries, f"no image is asked more than {task.queries} times, the start included",
               f"asks {most} times about one image, and {task.queries} are allowed: the start is a query, too")
    yield need(farthest <= task.eps * (1 + SLACK) + 1e-6, "every point lies within ε of its image",
               f"a point lies {farthest / task.eps:.2f} ε from its image: windows are set to x ± ε, and rows of "
               "points and images must fit", share=0.5)
    out = any(run.asked.outside or not in_box(run.x_adv) for run in runs)
    yield need(not out, "and in the pixel box", "pixels leave [0, 1]: clamp every proposal", share=0.5)


def _asked_as_it_should(runs: list[CountedRun], task: SquareTask) -> Iterator[Observation]:
    """Stripes first, then one window of the schedule's side at each query, up to the last. Four shares."""
    logs = [run.asked.log for run in runs]
    yield need(all(log.striped.all() for log in logs), "the first query of each image is x ± ε in stripes",
               "the first query of an image is not x ± ε in vertical stripes: begin with given.stripes")
    changed, fitting = sum(log.changed for log in logs), sum(log.fitting for log in logs)
    fits = changed > 0 and fitting >= 0.9 * changed
    query, height, width, side = next((log.misfit for log in logs if log.misfit is not None), (0, 0, 0, 0))
    yield need(fits, "then each query tries one window of the side that the schedule says",
               "no later query tries anything new" if not changed else
               f"query {query} after the start changes {height} × {width} pixels of the best point, and its window, of "
               f"{task.queries} queries, has side {side}. {100 * fitting / changed:.0f} % of the windows are as large "
               "as the schedule says", share=1.5)
    alike, apart = sum(log.alike for log in logs), sum(log.apart for log in logs)
    yield need(apart > alike, "at a place of its own in each image",
               "all images get their window at the same place: draw one for each" if alike else
               "the places of windows that do not fit the schedule cannot be judged", share=0.5)
    left = [int(queries) for run in runs for queries in run.asked.queries[run.asked.first == 0]]
    yield need(min(left, default=task.queries) >= task.queries, "until an image is solved or the budget is spent",
               f"stops after {min(left, default=0)} of {task.queries} queries on an image that still stands")


def _wasted_nothing(runs: list[CountedRun], model: nn.Module, y: Tensor) -> Iterator[Observation]:
    """Three shares: the best point comes back, and nothing is asked about an image that is solved."""
    with torch.no_grad():
        worse = [int((margin_loss(model(run.x_adv), y) < run.asked.best - 1e-3).sum()) for run in runs]
    yield need(not any(worse), "the best point that was found is what comes back",
               f"on {max(worse)} of {len(y)} images a better point was found on the way than the one that came back: "
               "accept only what raises the loss, and return the best", share=1.5)
    late = max(int(run.asked.after.max()) for run in runs)
    yield need(late == 0, "an image that is solved is asked no more",
               f"an image was asked {late} times more after it had been solved: ask only for those still standing",
               share=1.5)


def _as_good_as_the_library(runs: list[CountedRun], task: SquareTask) -> Iterator[Observation]:
    """Eleven shares."""
    mine, peer = torch.stack([run.broken for run in runs]).float().mean().item(), _librarys(task)
    words = (f"{100 * mine:.0f} % of {len(runs[0].broken)} images broken by {task.queries} queries, "
             f"by the library's Square attack {100 * peer:.0f} %")
    yield need(mine >= peer - task.behind, words,
               f"{words}: too few. Do windows shrink, is the best point kept, are all images followed?", share=11)


@lru_cache(maxsize=8)
def _librarys(task: SquareTask) -> float:
    """The share of images that the library's attack breaks."""
    found = SquareAttack(ThreatModel("linf", task.eps), queries=task.queries).run(task.model(), *task.data())
    return found.success.float().mean().item()


@step(points=2, shares=2, forbidden=("attacks",))
def masked(mine: Callable[..., Tensor], task: SquareTask = FIRST) -> Iterator[Observation]:
    """Where gradients are masked, scores still lead somewhere."""
    model = BitDepth(task.model(), bits=4).eval()
    x, y = task.data()
    right = ~misread(model, x, y)
    x, y = x[right], y[right]
    threat = ThreatModel("linf", task.eps)
    pgd = PGD(threat, steps=20).run(model, x, y).success.float().mean().item()
    run = counted_run(mine, model, x, y, task)
    if isinstance(run, Observation):
        yield run
        return
    square = run.broken.float().mean().item()
    legal = within(run.x_adv, x, task.eps) and in_box(run.x_adv) and int(run.asked.queries.max()) <= task.queries
    words = f"pixels of 16 levels: yours breaks {100 * square:.0f} % of {len(x)} images, PGD {100 * pgd:.0f} %"
    yield need(legal and square > pgd + 0.2 and run.trick is None, words,
               "the points that come back lie outside ball or box, or took too many queries" if not legal else
               run.trick or f"{words}. PGD gets no gradient through the rounding; scores do not mind it", share=2)
