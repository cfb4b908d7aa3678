"""Checks of `square_attack` on the points that are tried: stripes, then windows of a size that shrinks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from robustness_lib.grading.given import square_attack as given
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.returned_values import SLACK, in_box, not_images
from robustness_lib.grading.square_attack.variants import FIRST, FORBIDDEN, SquareTask
from robustness_lib.grading.steps import step

__all__ = ["propose", "stripes", "window_side"]


@step(points=2, shares=7, forbidden=FORBIDDEN)
def stripes(mine: Callable[..., Tensor], task: SquareTask = FIRST,
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


@step(points=2, shares=6, forbidden=FORBIDDEN)
def window_side(mine: Callable[..., int], task: SquareTask = FIRST,
                budgets: tuple[int, ...] = (10_000, 500)) -> Iterator[Observation]:
    """The schedule: a window covers p of the pixels, p_init at first, halved at nine points of the budget."""
    first = mine(1, 10_000, 32, 32)
    if isinstance(first, bool) or not isinstance(first, Integral):
        yield wrong(f"returns {type(first).__name__} and no whole number: a side is counted in pixels (int)")
        return
    expected = given.window_side(1, 10_000, 32, 32)
    share = round(0.8 * 32 * 32)
    yield need(first == expected, f"begins with a side of {first} on 32 × 32 pixels",
               f"begins with a side of {first} on 32 × 32 pixels, and a square of .8 of them has side {expected}"
               + (": the side is the square root of the number of pixels" if first in (share, share + 1) else ""),
               share=0.5)
    # At the largest budget a breakpoint is missed by one query at most if > and ≥ were confused: judged apart.
    whole = {q: mine(q, 10_000, 64, 64, 1.0) for q in range(1, 10_000)}
    slip = next((slip for slip in _SLIPS if sum(whole[q] == slip.side(q, 10_000, 64, 1.0) for q in whole) > 9000),
                _SLIPS[0])
    yield need(slip.rounding is round, "rounds to the nearest whole number",
               f"rounds {'down' if slip.rounding is math.floor else 'up'}: round to the nearest, round(...)", share=0.5)
    yield need(not slip.fixed, "with the p_init that it is given",
               "leaves out p_init: the check asks with p_init = 1, and the windows are those of .8", share=0.5)
    right = {q: slip.side(q, 10_000, 64, 1.0) for q in whole}  # what was said already is not said again
    edges = set(given.HALVED_AFTER)
    off = [mark for mark in given.HALVED_AFTER if any(whole[q] != right[q] for q in (mark + 1, mark + 5))]
    yield need(not off, "halves p at all nine points",
               f"p is not what it should be after query {_listed(off)} of 10,000: the nine points are "
               f"{_listed(given.HALVED_AFTER)}", share=1.5)
    yield need(all(whole[q] == right[q] for q in edges), "a point belongs to what went before it",
               "p is halved one query early: it is halved after query 10, not at it", share=0.5)
    small = any(mine(q, queries, 32, 32) != slip.side(q, queries, 32, 0.8)
                for queries in budgets for q in range(1, queries) if q * 10_000 // queries not in edges)
    scaled = not off and not small
    yield need(scaled, "the points move with the budget", "with fewer queries the windows are not the right ones: the "
               "points are for 10,000 queries, and with 500 each comes after a twentieth as many", share=1.5)
    sizes = [mine(q, 500, side, side, 0.8) for side in (3, 8) for q in (1, 100, 499)]
    yield need(min(sizes) >= 1 and all(mine(1, 500, side, side, 1.0) <= side for side in (3, 8)),
               "never smaller than one pixel nor larger than the image",
               f"a side of {min(sizes)} on a small image: it is at least 1 and at most the image's side")


@dataclass(frozen=True)
class _Slip:
    """A way to compute a window's side that is right, or wrong in a way that has nothing to do with the schedule."""

    rounding: Callable[[float], int]
    fixed: bool  # at p = .8, whatever p_init is

    def side(self, query: int, queries: int, of: int, p_init: float) -> int:
        """On an image of `of` × `of` pixels."""
        halvings = sum(query * 10_000 > mark * queries for mark in given.HALVED_AFTER)
        return min(max(self.rounding(math.sqrt((0.8 if self.fixed else p_init) / 2**halvings) * of), 1), of)


_SLIPS = [_Slip(rounding, fixed) for fixed in (False, True) for rounding in (round, math.floor, math.ceil)]


def _listed(numbers: Any) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


@step(points=3, shares=8, forbidden=FORBIDDEN)
def propose(mine: Callable[..., Tensor], task: SquareTask = FIRST, shape: tuple[int, ...] = (24, 3, 12, 12),
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
