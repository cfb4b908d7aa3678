"""How a search asked: whether it began with stripes, and by which windows its points changed."""

from __future__ import annotations

import torch
from torch import Tensor

from robustness_lib.grading.given import square_attack as given

__all__ = ["SearchLog"]


class SearchLog:
    """What is noted of each point that is asked about: not the points, which would fill the memory.

    `best` (N, C, H, W) are the points with the largest loss so far. `striped` (N,) says of each image whether its first
    point was x ± ε in vertical stripes. Of the later points, each compared with the best one before it: `changed`
    counts those that differ from it at all, `fitting` those where that is one square window at most as large as the
    schedule says, with one side of just that length. `alike` and `apart` count windows that lie, at one query of one
    size, where the first image's does, and elsewhere. `misfit` is the first that did not fit: the query, its height and
    width in pixels, and the side that it should have had. `leapt` (N,) says of each image whether its best point was
    neither its first one, in stripes, nor at most the largest window away from the best or the last one before.
    """

    def __init__(self, x: Tensor, eps: float, budget: int) -> None:
        self._x, self._eps, self._budget = x, eps, budget
        self.best, self._last = x.clone(), x.clone()
        self.striped = torch.zeros(len(x), dtype=torch.bool)
        self.leapt = torch.zeros(len(x), dtype=torch.bool)
        self.changed = self.fitting = self.alike = self.apart = 0
        self.misfit: tuple[int, int, int, int] | None = None
        self._places: dict[int, tuple[int, int]] = {}

    def note(self, points: Tensor, rows: Tensor, queries: Tensor, better: Tensor) -> None:
        """Points (M, C, H, W) of the images with these numbers (M,), on which so many queries were spent before (M,),
        and whether they are the best so far (M,)."""
        first = queries == 0
        if first.any():
            self.striped[rows[first]] = _striped(points[first], self._x[rows[first]], self._eps)
            self.leapt[rows[first]] = ~self.striped[rows[first]]
        if not first.all():
            self._compare(points[~first], rows[~first], queries[~first], better[~first])
        self.best[rows[better]] = points[better]
        self._last[rows] = points

    def _compare(self, points: Tensor, rows: Tensor, queries: Tensor, better: Tensor) -> None:
        top, height, left, width = _window(points, self.best[rows])
        known = {query: given.window_side(query, self._budget, *points.shape[2:]) for query in set(queries.tolist())}
        side = torch.tensor([known[query] for query in queries.tolist()])
        some, longest = height > 0, torch.maximum(height, width)
        self.changed += int(some.sum())
        self.fitting += int((some & (longest == side)).sum())
        far = longest > given.window_side(1, 10_000, *points.shape[2:])
        if (far & better).any():  # a walk that keeps whatever it tried last
            _, high, _, wide = _window(points, self._last[rows])
            far &= torch.maximum(high, wide) > given.window_side(1, 10_000, *points.shape[2:])
        self.leapt[rows[better]] = far[better]
        if self.misfit is None and (off := (some & (longest != side)).nonzero()[:, 0]).numel():
            self.misfit = tuple(int(one[off[0]]) for one in (queries, height, width, side))  # type: ignore[assignment]
        whole = (height == side) & (width == side)
        for query, place in zip(queries[whole].tolist(), zip(top[whole].tolist(), left[whole].tolist(), strict=True),
                                strict=True):
            if query not in self._places:
                self._places[query] = place
            elif self._places[query] == place:
                self.alike += 1
            else:
                self.apart += 1


def _window(points: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, height, left and width of the least rectangles that hold what differs; height and width 0 where nothing."""
    moved = ((points - before).abs() > 1e-6).any(1)
    return *_extent(moved.any(2)), *_extent(moved.any(1))


def _extent(moved: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows or columns in which something moved (M, L): the first one, and how many there are from it to the last;
    0 where nothing moved."""
    length = moved.shape[1]
    places = torch.arange(length)
    first = torch.where(moved, places, length).amin(1)
    last = torch.where(moved, places, -1).amax(1)
    return first, (last - first + 1).clamp(min=0)


def _striped(points: Tensor, x: Tensor, eps: float) -> Tensor:
    """Which points are x + ε or x − ε, clamped, in all of each column, and not the same in all columns."""
    up, down = (((points - (x + shift).clamp(0, 1)).abs() < 1e-5).all(2) for shift in (eps, -eps))
    stripes = (up | down).flatten(1).all(1)
    return stripes & ~up.flatten(1).all(1) & ~down.flatten(1).all(1)
