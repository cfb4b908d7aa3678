"""An attack on a model that gives scores only: what it asked, what it returned, and whether one led to the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from robustness_lib.grading.observations import Observation, wrong
from robustness_lib.grading.returned_values import misread, not_images
from robustness_lib.grading.square_attack.scores_only import ScoresOnly
from robustness_lib.grading.square_attack.variants import SquareTask

__all__ = ["CountedRun", "counted_run"]


@dataclass(frozen=True)
class CountedRun:
    """What an attack asked, the points (N, C, H, W) that it returned, and which of them are misread (N,)."""

    asked: ScoresOnly
    x_adv: Tensor
    misread: Tensor

    @property
    def farthest(self) -> float:
        """The largest change that was shown or returned."""
        return max(self.asked.farthest, (self.x_adv - self.asked.x).abs().max().item())

    @property
    def _unseen(self) -> Tensor:
        """Which points are misread and are not the best ones that the model was asked about (N,)."""
        return self.misread & ((self.x_adv - self.asked.log.best).abs().flatten(1).amax(1) > 1e-6)

    @property
    def broken(self) -> Tensor:
        """Which images are broken by what the scores led to (N,)."""
        return self.misread & ~self._unseen & ~self.asked.log.leapt

    @property
    def trick(self) -> str | None:
        """In words, that most of the images that are misread were not broken by what the scores led to."""
        n, unseen, leapt = (int(one.sum()) for one in (self.misread, self._unseen, self.misread & self.asked.log.leapt))
        if unseen > n / 2:
            return (f"{unseen} of {n} points that are misread are not the best ones that the model was asked about: "
                    "return those")
        if leapt > n / 2:
            return (f"{leapt} of {n} images are broken by a point that is neither a start in stripes nor one window "
                    "from the best point before it: scores alone do not lead there")
        return None


def counted_run(mine: Callable[..., Any], model: nn.Module, x: Tensor, y: Tensor, task: SquareTask,
                seed: int = 0) -> CountedRun | Observation:
    """Run an attack on a model that gives scores only. An observation that ends a check where it returns no images, or
    asks for no score."""
    asked = ScoresOnly(model, x.clone(), y.clone(), task.eps, task.queries)
    x_adv = mine(asked, x.clone(), y.clone(), task.eps, task.queries, task.generator(seed))
    if (ending := not_images(x_adv, x)) is not None:
        return ending
    if not asked.queries.any():
        return wrong("asks the model nothing: what comes back was not found by its scores")
    return CountedRun(asked, x_adv.float(), misread(model, x_adv, y))
