"""A model that gives scores and nothing else, counts who asks, and remembers about what."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustness_lib.grading.square_attack.search_log import SearchLog
from robustness_lib.losses import margin_loss

__all__ = ["ScoresOnly"]


class ScoresOnly:
    """A model behind a counter: it takes points and says of which images they are, and gives their scores.

    `x` (N, C, H, W) are the images, and `queries` (N,) counts what was spent on each. The rest is for whoever judges an
    attack: `first` (N,) is the query at which an image was first misread, 0 while it was not; `after` (N,) counts what
    was spent on it after that; `best` (N,) is the largest margin loss that was seen; `farthest` the largest change that
    was shown, and `outside` whether a pixel ever left [0, 1]; `log` how the points changed from query to query.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, eps: float, budget: int) -> None:
        def scores(points: Tensor) -> Tensor:
            found: Tensor = model(points)
            return found.clone()

        self._scores = scores  # a function, and no model that could be asked for more
        self.x, self._y = x, y
        self.queries, self.first, self.after = (torch.zeros(len(x), dtype=torch.int64) for _ in range(3))
        self.best = torch.full((len(x),), -torch.inf)
        self.farthest, self.outside = 0.0, False
        self.log = SearchLog(x, eps, budget)

    def __call__(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """Scores (M, K) of points (M, C, H, W). rows: (M,) which images they belong to; all, in order, by default.

        Raises:
            TypeError: for points that ask for a gradient: there are none.
            ValueError: if there is not one row for each point, or a row stands twice.
        """
        rows = torch.arange(len(self.x)) if rows is None else torch.as_tensor(rows)
        if points.requires_grad:
            raise TypeError("this model gives scores and no gradients: points with requires_grad are refused")
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        if rows.shape != points.shape[:1]:
            raise ValueError(f"{len(points)} points came with rows of shape {tuple(rows.shape)}: give one row for each "
                             "point, the number of its image")
        if len(set(rows.tolist())) < len(rows):
            raise ValueError("an image stands twice in rows: one query for each image at a time")
        with torch.no_grad():
            scores = self._scores(points.float())
        self._note(points.float(), rows, scores)
        return scores

    def _note(self, points: Tensor, rows: Tensor, scores: Tensor) -> None:
        if not len(rows):
            return
        loss = margin_loss(scores, self._y[rows])
        self.log.note(points, rows, self.queries[rows], loss > self.best[rows])
        self.after[rows] += self.first[rows] > 0
        self.queries[rows] += 1
        solved = (loss > 0) & (self.first[rows] == 0)
        self.first[rows] = torch.where(solved, self.queries[rows], self.first[rows])
        self.best[rows] = torch.maximum(self.best[rows], loss)
        self.farthest = max(self.farthest, (points - self.x[rows]).abs().max().item())
        self.outside |= bool((points.min() < 0) | (points.max() > 1))
