"""Checks of the exercise `square_attack`: an attack that asks for scores only (Andriushchenko et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustness_lib.attacks import PGD, SquareAttack
from robustness_lib.defenses import BitDepth
from robustness_lib.grading.given import square_attack as given
from robustness_lib.grading.images import SLACK, in_box, not_images, within
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.scores_only import ScoresOnly
from robustness_lib.grading.steps import step
from robustness_lib.grading.tasks import RoadSignTask
from robustness_lib.losses import margin_loss
from robustness_lib.threat import ThreatModel

__all__ = ["SquareTask", "accept", "attack", "broken_within", "given", "masked", "propose", "side_by_side", "stripes",
           "task", "window_side"]

_GIVEN = ("grading/given", "attacks")


@dataclass(frozen=True)
class SquareTask(RoadSignTask):
    """What the exercise is about, in one of its variants: a model, ε, a seed, and how many queries there are.

    images: how many of the test set are attacked. seeds: how often the attack is run.
    """

    queries: int = 300
    seeds: int = 1
    behind: float = 0.15  # how far the attack may stay behind the library's

    variants = (("signs-tiny-pgd", 12), ("signs-tiny-standard", 5),
                ("signs-tiny-pgd", 14), ("signs-tiny-standard", 4))


def task(variant: int = 0) -> SquareTask:
    """The exercise in one of its variants."""
    return SquareTask(variant)


# The parts.


@step(points=2, shares=7, forbidden=_GIVEN)
def stripes(mine: Callable[..., Tensor], task: SquareTask = SquareTask(),
            shape: tuple[int, ...] = (24, 3, 16, 20)) -> Iterator[Observation]:
    """The start: vertical stripes of ±ε, one sign for each image, channel and column, in the pixel box."""
    eps, x = task.eps, torch.rand(shape, generator=task.generator())
    grey, before = torch.full(shape, 0.5), x.clone()
    start = mine(x, eps, task.generator(1))
    if (ending := not_images(start, x)) is not None:
        yield ending
        return
    yield need(torch.equal(x, before), "the images themselves stay as they were",
               "changes the images it was given: work on a copy")
    yield need(in_box(start), "pixels stay in [0, 1]", "pixels leave [0, 1]: clamp the result to the pixel box")
    yield need((start - x).abs().max() <= eps * (1 + SLACK), "within ε of the images",
               "changes a pixel by more than ε: add +ε or −ε, once")
    delta = mine(grey, eps, task.generator(2)).float() - grey
    full = (delta.abs() - eps).abs().max() < 1e-5
    yield need(full, "each pixel moves by ε, up or down",
               "some pixels move by less than ε: the start takes the ends, +ε or −ε, and nothing in between")
    tall = (delta == delta[:, :, :1]).all()
    flat = (delta == delta[:, :, :, :1]).all()
    yield need(tall and not flat, "stripes stand upright: one sign down each column",
               "all columns of an image have the same sign: draw one for each column" if tall else
               "stripes lie: one sign along each row, and it should be one down each column" if flat else
               "no stripes: down a column all pixels of a channel have the same sign")
    up, channels = delta > 0, shape[1]
    same = all(torch.equal(up[:, 0], up[:, c]) for c in range(1, channels))
    yield need(channels == 1 or not same, "each channel has its signs",
               "all channels share their signs: draw them for each channel")
    alike = all(torch.equal(up[0], one) for one in up[1:])
    even = 0.3 < up[:, :, 0].float().mean() < 0.7
    yield need(not alike and even, "each image has its signs, about as many up as down",
               "all images get the same stripes: draw them for each image" if alike else
               "one sign is far more frequent than the other: both are equally likely")


@step(points=2, shares=6, forbidden=_GIVEN)
def window_side(mine: Callable[..., int], task: SquareTask = SquareTask(),
                budgets: tuple[int, ...] = (10_000, 500)) -> Iterator[Observation]:
    """The schedule: a window covers p of the pixels, p_init at first, halved at nine points of the budget."""
    first = mine(1, 10_000, 32, 32)
    if isinstance(first, bool) or not isinstance(first, int):
        yield wrong(f"returns {type(first).__name__} and no whole number: a side is counted in pixels (int)")
        return
    expected = given.window_side(1, 10_000, 32, 32)
    share = round(0.8 * 32 * 32)
    yield need(first == expected, f"begins with a side of {first} on 32 × 32 pixels",
               f"begins with a side of {first} on 32 × 32 pixels, and a square of .8 of them has side {expected}"
               + (": the side is the square root of the number of pixels" if first in (share, share + 1) else ""))
    # At the largest budget a breakpoint is missed by one query at most if > and ≥ were confused: judged apart.
    whole = {q: mine(q, 10_000, 64, 64, 1.0) for q in range(1, 10_000)}
    right = {q: given.window_side(q, 10_000, 64, 64, 1.0) for q in whole}
    edges = set(given.HALVED_AFTER)
    off = [mark for mark in given.HALVED_AFTER if any(whole[q] != right[q] for q in (mark + 1, mark + 5))]
    yield need(not off, "halves p at all nine points",
               f"p is not what it should be after query {_listed(off)} of 10,000: the nine points are "
               f"{_listed(given.HALVED_AFTER)}", share=2)
    yield need(all(whole[q] == right[q] for q in edges), "a point belongs to what went before it",
               "p is halved one query early: it is halved after query 10, not at it", share=0.5)
    small = any(mine(q, queries, 32, 32) != given.window_side(q, queries, 32, 32)
                for queries in budgets for q in range(1, queries) if q * 10_000 // queries not in edges)
    scaled = not off and not small
    yield need(scaled, "the points move with the budget", "with fewer queries the windows are not the right ones: the "
               "points are for 10,000 queries, and with 500 each comes after a twentieth as many", share=1.5)
    sizes = [mine(q, 500, side, side, 0.8) for side in (3, 8) for q in (1, 100, 499)]
    yield need(min(sizes) >= 1 and all(mine(1, 500, side, side, 1.0) <= side for side in (3, 8)),
               "never smaller than one pixel nor larger than the image",
               f"a side of {min(sizes)} on a small image: it is at least 1 and at most the image's side")


@step(points=3, shares=8, forbidden=_GIVEN)
def propose(mine: Callable[..., Tensor], task: SquareTask = SquareTask(), shape: tuple[int, ...] = (24, 3, 12, 12),
            side: int = 4) -> Iterator[Observation]:
    """The proposal: one square window for each image, set to x + ε or x − ε, one sign for each channel."""
    eps, grey = task.eps, torch.full(shape, 0.5)
    made = mine(grey.clone(), grey.clone(), side, eps, task.generator())
    if (ending := not_images(made, grey)) is not None:
        yield ending
        return
    moved = made.float() != grey
    boxes = [_window(one) for one in moved.any(1)]
    square = all(box is not None and box[2:] == (side, side) for box in boxes)
    filled = [int(one.sum()) for one in moved.any(1)]
    yield need(square and set(filled) == {side * side}, "changes one square window of each image",
               _what_window(filled, side, shape), share=2)
    delta = made.float() - grey
    yield need((delta[moved].abs() - eps).abs().max() < 1e-5 if moved.any() else False, "by +ε or −ε",
               "the window does not move by ε: it is set to x + ε or x − ε, and nothing in between")
    channels = shape[1]
    signs = [[set(delta[i, c][moved[i, c]].sign().tolist()) for c in range(channels)] for i in range(shape[0])]
    one_each = all(len(found) <= 1 for image in signs for found in image)
    differ = channels == 1 or any(len(set.union(*image)) > 1 for image in signs)
    yield need(one_each and differ, "one sign for each channel of the window",
               "a sign for each pixel: the window takes one sign for each channel" if not one_each else
               "all channels of a window share a sign: draw one for each channel")
    start = given.stripes(grey, eps, task.generator(1))
    x, x_adv = grey.clone(), start.clone()
    again = mine(x, x_adv, side, eps, task.generator(2)).float()
    yield need(torch.equal(x, grey) and torch.equal(x_adv, start), "what it is given stays as it was",
               "changes the tensors it was given: begin with x_adv.clone()")
    far = (again - grey).abs().max()
    kept = ((again != start).any(1).flatten(1).sum(1) <= side * side).all()
    yield need(far <= eps * (1 + SLACK) and kept, "the window is set from x, and the rest stays x_adv's",
               "the window reaches 2ε: it is set to x ± ε, not x_adv ± ε" if far > 1.5 * eps else
               "moves a pixel by more than ε" if far > eps * (1 + SLACK) else
               "forgets x_adv outside the window: only the window changes")
    corners = torch.stack([mine(black := torch.zeros(shape), black, side, eps, task.generator(3)),
                           mine(white := torch.ones(shape), white, side, eps, task.generator(4))])
    yield need(in_box(corners), "pixels stay in [0, 1]", "pixels leave [0, 1] on black or white images: clamp")
    seen = [box for n in range(30) for box in _windows(mine, grey, side, eps, task.generator(10 + n))]
    tops, lefts = ({place[axis] for place in seen} for axis in (0, 1))
    last = shape[2] - side
    everywhere = {0, last} <= tops and {0, last} <= lefts
    several = len({box[:2] for box in boxes if box is not None}) > 1
    yield need(everywhere and several, "each image has its place, and every place can come",
               "the same place in all images: draw one for each" if not several else
               "the window never touches an edge: the last place is image side − window side, and randint leaves its "
               "upper end out")


@step(points=2, shares=5, forbidden=_GIVEN)
def accept(mine: Callable[..., tuple[Tensor, Tensor]], task: SquareTask = SquareTask(),
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


# The attack.


def _run(mine: Callable[..., Any], model: nn.Module, x: Tensor, y: Tensor, task: SquareTask,
         seed: int = 0) -> tuple[ScoresOnly, Any]:
    asked = ScoresOnly(model, x.clone(), y.clone())
    return asked, mine(asked, x.clone(), y.clone(), task.eps, task.queries, task.generator(seed))


@step(points=6, shares=12, forbidden=("attacks",))
def attack(mine: Callable[..., Tensor], task: SquareTask = SquareTask()) -> Iterator[Observation]:
    """The loop: on all images within ε and the box, no query too many, none wasted, and about as good as it gets."""
    (x, y), model = task.data(), task.model()
    runs = []
    for seed in range(task.seeds):
        asked, x_adv = _run(mine, model, x, y, task, seed)
        if (ending := not_images(x_adv, x)) is not None:
            yield ending
            return
        runs.append((asked, x_adv.float()))
    yield from _kept_to_the_rules([asked for asked, _ in runs], [x_adv for _, x_adv in runs], x, task)
    with torch.no_grad():
        final = [margin_loss(model(x_adv), y) for _, x_adv in runs]
    worse = [int((end < asked.best - 1e-3).sum()) for end, (asked, _) in zip(final, runs, strict=True)]
    yield need(not any(worse), "the best point that was found is what comes back",
               f"on {max(worse)} of {len(x)} images a better point was found on the way than the one that came back: "
               "accept only what raises the loss, and return the best", share=2)
    late = max(int(asked.after.max()) for asked, _ in runs)
    yield need(late == 0, "an image that is solved is asked no more",
               f"an image was asked {late} times more after it had been solved: ask only for those still standing",
               share=2)
    yield from _as_good_as_the_library([end > 0 for end in final], model, x, y, task)


def _kept_to_the_rules(asked: list[ScoresOnly], ends: list[Tensor], x: Tensor,
                       task: SquareTask) -> Iterator[Observation]:
    """Ball, box and budget, on all images."""
    most = max(int(one.queries.max()) for one in asked)
    yield need(0 < most <= task.queries, f"no image is asked more than {task.queries} times, the start included",
               "asks the model nothing" if most == 0 else
               f"asks {most} times about one image, and {task.queries} are allowed: the start is a query, too", share=2)
    shown = max(one.farthest for one in asked)
    end = max((x_adv - x).abs().max().item() for x_adv in ends)
    yield need(max(shown, end) <= task.eps * (1 + SLACK) + 1e-6, "every point lies within ε of its image",
               f"a point lies {max(shown, end) / task.eps:.2f} ε from its image: windows are set to x ± ε, and rows of "
               "points and images must fit")
    out = any(one.outside for one in asked) or not in_box(torch.stack(ends))
    yield need(not out, "and in the pixel box", "pixels leave [0, 1]: clamp every proposal")


def _as_good_as_the_library(broken: list[Tensor], model: nn.Module, x: Tensor, y: Tensor,
                            task: SquareTask) -> Iterator[Observation]:
    mine = torch.stack(broken).float().mean().item()
    peers = SquareAttack(ThreatModel("linf", task.eps), queries=task.queries).run(model, x, y)
    peer = peers.success.float().mean().item()
    words = (f"{100 * mine:.0f} % of {len(x)} images broken by {task.queries} queries, "
             f"by the library's Square attack {100 * peer:.0f} %")
    yield need(mine >= peer - task.behind, words,
               f"{words}: too few. Do windows shrink, is the best point kept, are all images followed?", share=4)


@step(points=2, shares=2, forbidden=("attacks",))
def masked(mine: Callable[..., Tensor], task: SquareTask = SquareTask()) -> Iterator[Observation]:
    """Where gradients are masked, scores still lead somewhere."""
    model = BitDepth(task.model(), bits=4).eval()
    x, y = task.data()
    with torch.no_grad():
        right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    threat = ThreatModel("linf", task.eps)
    pgd = PGD(threat, steps=20).run(model, x, y).success.float().mean().item()
    _, x_adv = _run(mine, model, x, y, task)
    with torch.no_grad():
        square = (model(x_adv.float()).argmax(1) != y).float().mean().item()
    legal = within(x_adv.float(), x, task.eps) and in_box(x_adv)
    words = f"pixels of 16 levels: yours breaks {100 * square:.0f} % of {len(x)} images, PGD {100 * pgd:.0f} %"
    yield need(legal and square > pgd + 0.2, words,
               f"{words}. PGD gets no gradient through the rounding; scores do not mind it" if legal else
               "the points that come back lie outside ball or box", share=2)


@step(points=2, shares=4)
def broken_within(mine: Callable[..., Tensor], task: SquareTask = SquareTask(), n: int = 40) -> Iterator[Observation]:
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


def side_by_side(mine: Callable[..., Tensor], task: SquareTask = SquareTask()) -> tuple[Tensor, Tensor, Tensor]:
    """For the picture: the query that broke each image (N,), 0 for never, by one's own attack and by the library's; and
    what one's own added to the image that took it longest (C, H, W)."""
    (x, y), model = task.data(), task.model()
    asked, x_adv = _run(mine, model, x, y, task)
    peer = SquareAttack(ThreatModel("linf", task.eps), queries=task.queries).run(model, x, y)
    theirs = torch.where(peer.success, peer.queries - 1, 0)  # it asks for the image itself, too
    longest = int(asked.first.argmax())
    return asked.first, theirs, (x_adv.float() - x)[longest]


# Small things that several checks ask.


def _window(moved: Tensor) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of the least rectangle that holds what moved, (H, W) bool."""
    rows, columns = (moved.any(axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def _windows(mine: Callable[..., Tensor], grey: Tensor, side: int, eps: float,
             generator: torch.Generator) -> list[tuple[int, int, int, int]]:
    """Where a proposal on grey images changes them."""
    moved = (mine(grey.clone(), grey.clone(), side, eps, generator).float() != grey).any(1)
    return [box for one in moved if (box := _window(one)) is not None]


def _what_window(filled: list[int], side: int, shape: tuple[int, ...]) -> str:
    if not any(filled):
        return "changes nothing"
    if max(filled) == shape[2] * shape[3]:
        return "changes the whole image: only the window takes new values"
    if not all(filled):
        return "leaves some images as they are: each image gets a window"
    return f"changes {max(filled)} pixels of an image, and a window of side {side} has {side * side}"


def _listed(numbers: Any) -> str:
    return ", ".join(f"{number:,}" for number in numbers)
