"""Checks of `fgsm_first_steps` on accuracy under attack."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from robustness_lib.grading.fgsm_first_steps.variants import FIRST, FgsmFirstStepsTask
from robustness_lib.grading.given import fgsm_first_steps as given
from robustness_lib.grading.library_calls import ATTACKING
from robustness_lib.grading.observations import Observation, need, wrong
from robustness_lib.grading.steps import step
from robustness_lib.statistics import Accuracy

__all__ = ["Waves", "before_and_after", "on_waves", "still_right"]


@step(points=3, shares=6, forbidden=ATTACKING)
def still_right(mine: Callable[..., Accuracy], task: FgsmFirstStepsTask = FIRST,
                n: int = 60) -> Iterator[Observation]:
    """Accuracy under attack: who was right before and still is, among all images."""
    model, x, y = on_waves(task, n)
    try:
        found = mine(model, x.clone(), y.clone(), task.eps)
    except RuntimeError as error:
        if "must match the size" not in str(error):
            raise
        yield wrong(f"{error}. Scores are (N, classes): the answer is the largest in each row, argmax(1), and there is "
                    "one for each label")
        return
    if not isinstance(found, Accuracy):
        yield wrong(f"returns {type(found).__name__}: return Accuracy(correct, n) or Accuracy.of(right), so that "
                    "nobody has to ask “of how many?”")
        return
    yield need(found.n == n, "of all images", f"n is {found.n}, and there are {n} images: an image that is misread "
               "without an attack counts, as one that is not right")
    columns = _countable(*before_and_after(model, x, y, task.eps), y)
    counted = {int(column.sum()): words for words, column in columns.items()}
    right = next(count for count, words in counted.items() if words == _RIGHT)
    yield need(found.correct == right, "counts who was right before and still is",
               counted.get(found.correct, f"counts {found.correct}, and {right} were right before and still are"),
               share=3)
    yield _on_the_task(mine, task)


class Waves(nn.Module):
    """Scores that rise and fall with the images' mean, each of four classes a quarter of a wave after the one before,
    so that a step can go too far: past the mistakes, and into the next wave. Six more classes never come."""

    def __init__(self, length: float) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, 10)."""
        at = x.flatten(1).mean(1, keepdim=True) / self.length
        rising = 3 * torch.cos(2 * math.pi * (at - torch.arange(4) / 4))
        return torch.cat([rising, rising.new_full((len(x), 6), -6.0)], 1)


def on_waves(task: FgsmFirstStepsTask, n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A model on which one step can go too far, images, and labels of which it reads about two thirds rightly; such
    that no two of the things that people count come to the same number."""
    draw, model = task.generator(n), Waves(task.eps / 0.8)
    for _ in range(1000):
        x = (0.3 + 0.4 * torch.rand(n, 1, 1, 1, generator=draw)).expand(n, 3, 4, 4).contiguous()
        read = model(x).argmax(1)
        other = (read + torch.randint(1, 4, (n,), generator=draw)) % 4
        y = torch.where(torch.arange(n) % 3 == 0, other, read)
        counted = _countable(*before_and_after(model, x, y, task.eps), y)
        if len({int(column.sum()) for column in counted.values()}) == len(counted):
            return model, x, y
    raise AssertionError("no images on which all that people count differs")


def before_and_after(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """What the model answers before the attack and after it, (N,)."""
    moved = given.fgsm(model, x, y, eps)
    with torch.no_grad():
        return model(x).argmax(1), model(moved).argmax(1)


_RIGHT = "right before, and still"


def _countable(before: Tensor, after: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What people count, (N,) bool, by what is to be said to them. before, after: the model's answers."""
    was, still = before == y, after == y
    return {
        _RIGHT: was & still,
        "counts images that were misread before the attack and are right after it by accident: right is who was right "
        "before and still is": still,
        "counts who is right without an attack: ask the model about the attacked images": was,
        "counts the images that the attack broke: accuracy counts those it did not break": was & ~still,
        "counts mistakes: accuracy counts who is right": ~(was & still),
        "counts where the model did not change its answer: compare it with the label y": before == after,
    }


def _on_the_task(mine: Callable[..., Accuracy], task: FgsmFirstStepsTask) -> Observation:
    """Several ε on a real model; rounding may cost an image."""
    (x, y), model = task.data(), task.model()
    epsilons = [0.0, task.eps / 2, task.eps]
    found = [mine(model, x.clone(), y.clone(), eps) for eps in epsilons]
    right = [int(_countable(*before_and_after(model, x, y, eps), y)[_RIGHT].sum()) for eps in epsilons]
    words = "; ".join(f"{one} at ε = {255 * eps:g}/255" for one, eps in zip(found, epsilons, strict=True))
    expected = ", ".join(f"{count} at ε = {255 * eps:g}/255" for count, eps in zip(right, epsilons, strict=True))
    close = all(abs(one.correct - count) <= 1 and one.n == len(x) for one, count in zip(found, right, strict=True))
    return need(close, words, f"{words}. Of {len(x)} images, right before and still are: {expected}", share=2)
