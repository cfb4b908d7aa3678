"""The picture of `square_attack`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustness_lib.attacks import SquareAttack
from robustness_lib.grading.observations import Observation
from robustness_lib.grading.square_attack.counted_runs import counted_run
from robustness_lib.grading.square_attack.variants import FIRST, SquareTask
from robustness_lib.threat import ThreatModel

__all__ = ["side_by_side"]


def side_by_side(mine: Callable[..., Tensor], task: SquareTask = FIRST) -> tuple[Tensor, Tensor, Tensor]:
    """For the picture: the query that broke each image (N,), 0 for never, by one's own attack and by the library's; and
    what one's own added to the image that took it longest (C, H, W)."""
    (x, y), model = task.data(), task.model()
    run = counted_run(mine, model, x, y, task)
    if isinstance(run, Observation):
        raise ValueError(run.words)  # `once_written` says so in place of the picture
    peer = SquareAttack(ThreatModel("linf", task.eps), queries=task.queries).run(model, x, y)
    theirs = torch.where(peer.success, peer.queries - 1, 0)  # it asks for the image itself, too
    longest = int(run.asked.first.argmax())
    return run.asked.first, theirs, (run.x_adv - x)[longest]
