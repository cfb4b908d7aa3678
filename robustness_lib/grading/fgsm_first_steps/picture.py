"""The picture of `fgsm_first_steps`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustness_lib import data
from robustness_lib.grading.fgsm_first_steps.variants import FIRST, FgsmFirstStepsTask

__all__ = ["one_broken"]


def one_broken(mine: Callable[..., Tensor],
               task: FgsmFirstStepsTask = FIRST) -> tuple[Tensor, Tensor, float, tuple[str, str]]:
    """For the picture: an image (C, H, W) that one's own step breaks, the image after it, ε, and what the model says of
    both. Where it breaks none, the first image that was read rightly."""
    (x, y), model = task.data(), task.model()
    _, _, classes = data.load("signs", "test", n=1)
    x_adv = mine(model, x.clone(), y.clone(), task.eps).detach().float()
    with torch.no_grad():
        before, after = model(x).argmax(1), model(x_adv).argmax(1)
    read, broken = before == y, after != y
    i = int((read.int() + (read & broken).int()).argmax())
    return x[i], x_adv[i], task.eps, (classes[before[i]], classes[after[i]])
