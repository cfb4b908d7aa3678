"""The picture of `certified_accuracy`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robustness_lib.grading.certified_accuracy.under_attack import repeatable
from robustness_lib.grading.certified_accuracy.variants import FIRST, CertifiedAccuracyTask

__all__ = ["sandwich"]


def sandwich(certified: Callable[..., Tensor], attacked: Callable[..., float],
             task: CertifiedAccuracyTask = FIRST, n: int = 16) -> dict[str, Any]:
    """For the picture: one's own curves of certified accuracy by σ, and one's own attack on the first n images under
    the smaller σ at four ε, beside the share of these images that is certified at each radius."""
    x, y = task.data()
    certified(y[:1], torch.ones(1), y[:1], task.radii)  # what is not written yet says so before votes are counted
    curves = {sigma: certified(*task.voted(sigma), y, task.radii) for sigma in task.sigmas}
    sigma = task.sigmas[0]
    prediction, radius = task.voted(sigma)
    epsilons = [0.5 * sigma, sigma, 1.5 * sigma, 2 * sigma]
    attacked = repeatable(attacked, task)
    left = [attacked(task.model(sigma), x[:n], y[:n], sigma, eps, 100, task.generator(15)) for eps in epsilons]
    below = certified(prediction[:n], radius[:n], y[:n], task.radii)
    return {"curves": curves, "epsilons": epsilons, "attacked": left, "certified": below}
