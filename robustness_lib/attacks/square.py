"""Square attack: random search with squares, which asks the model for answers only and never for gradients
(Andriushchenko, Croce, Flammarion and Hein 2020, arXiv 1912.00049)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from robustness_lib.attacks._bounded import BoundedAttack
from robustness_lib.attacks._search import Run, Search, look_now
from robustness_lib.attacks._squares import L2Squares, LinfSquares, Squares
from robustness_lib.inputs import check_count, check_real
from robustness_lib.losses import Loss

__all__ = ["SquareAttack"]

_HALVE_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries


@dataclass(frozen=True)
class SquareAttack(BoundedAttack):
    """Random search: change one square window of the best point so far, keep the change if the loss rises.

    L∞: starts at vertical stripes of ±ε and sets a window to ±ε, one sign per channel. L2: starts at a grid of
    bumps and moves the change that a second window holds into the first. The windows shrink as queries are spent.
    Images of shape (N, D) are taken as one row of D pixels, (N, H, W) as one channel.

    queries: how often each example's perturbed images are shown to the model at most, the start included; one more
    query goes to the image itself under stop="success". p_init: the share of the pixels that a window covers at
    first; it is halved nine times on the way. seed: any whole number; an example's random numbers follow from it and
    the example's index. loss: "margin", as in the paper; the attack works on models without gradients.

    Where the model says that it answers at random (a part of it has a true `stochastic`, as `EOT` and the defenses
    that draw have), the best point is asked again before each window is tried, under the same draws, and queries are
    twice as many: else the luck of one draw would hold a point for good.

    Raises TypeError or ValueError for queries that are no whole number of at least 1, and for p_init outside (0, 1].
    """

    queries: int = 5000
    p_init: float = 0.8
    seed: int = 0
    loss: Loss | str = field(default="margin", kw_only=True)

    @property
    def follows_gradients(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("queries", self.queries)
        check_count("seed", self.seed, least=None)
        check_real("p_init", self.p_init, "the share of the pixels to change")
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init must lie in (0, 1], the share of the pixels to change; found {self.p_init}")

    def _attack(self, search: Search, start: Tensor | None) -> None:
        squares: type[Squares] = LinfSquares if self.threat.norm == "linf" else L2Squares
        run = Run(search, search.standing())
        proposals = squares(run, self.seed)
        x_adv = self._given_start(run, start) if start is not None else proposals.start()
        logits = search.queried.logits(x_adv)
        run.offer(0, x_adv, run.goal.value(logits), logits)
        for step in range(1, self.queries):
            if search.stop == "success" and look_now(step - 1) and run.drop_finished() is not None:
                if len(run.rows) == 0:
                    return
                proposals = squares(run, self.seed)
            proposals.ask(step, self._share(step))
        run.commit()

    def _share(self, step: int) -> float:
        """The share of the pixels that the window of this step covers; the first window is step 1."""
        spent = step * 10_000 // self.queries  # in whole numbers: 0.29 * 100 is not 29
        return float(self.p_init) / 2.0 ** sum(spent > mark for mark in _HALVE_AFTER)
