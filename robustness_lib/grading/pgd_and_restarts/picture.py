"""The pictures of `pgd_and_restarts`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustness_lib import data, models
from robustness_lib.grading.given import pgd_and_restarts as given
from robustness_lib.grading.pgd_and_restarts.points_seen import PointsSeen, distinct
from robustness_lib.grading.pgd_and_restarts.slopes import ForkedSlope
from robustness_lib.grading.pgd_and_restarts.variants import FIRST, PgdAndRestartsTask
from robustness_lib.grading.returned_values import misread

__all__ = ["broken_by_each", "two_walks"]


def two_walks(mine: Callable[..., Tensor], eps: float = 0.15, steps: int = 8) -> tuple[nn.Module, Tensor, list[Tensor]]:
    """For the picture: the model of the two moons, one of their points (2,), and two walks from it, (steps, 2) each."""
    model = models.load_pretrained("moons-standard").eval()
    points, labels, _ = data.load("moons", "test", n=1000)
    point, y = points[910:911].reshape(1, 1, 1, 2), labels[910:911]
    paths = []
    for seed in (3, 8):
        asked = PointsSeen(nn.Sequential(nn.Flatten(), model), point)
        start = given.random_start(point, eps, torch.Generator().manual_seed(seed))
        mine(asked, point.clone(), y.clone(), eps, steps, start)
        paths.append(torch.stack(distinct(asked.seen[0])).reshape(-1, 2))
    return model, point.flatten(), paths


def broken_by_each(mine: Callable[..., Tensor], restarts: int,
                   task: PgdAndRestartsTask = FIRST) -> dict[str, Tensor]:
    """For the picture: which of so many walks broke which image, (restarts, N) bool, each walk over all images; on the
    task's network at half of its ε, and on a slope that is forked, where half of all starts lead nowhere."""
    forked = ForkedSlope(task.eps / 0.45)
    tried: dict[str, tuple[nn.Module, tuple[Tensor, Tensor], float]] = {
        task.name: (task.model(), task.data(), task.eps / 2),
        "forked slope": (forked, forked.images(200, task.generator(9)), task.eps)}
    found = {}
    for name, (model, (x, y), eps) in tried.items():
        starts = [given.random_start(x, eps, task.generator(20 + number)) for number in range(restarts)]
        found[name] = torch.stack([misread(model, mine(model, x, y, eps, 10, start).detach(), y) for start in starts])
    return found
