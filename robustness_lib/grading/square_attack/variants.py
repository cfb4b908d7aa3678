"""What the exercise `square_attack` is about, in its variants."""

from __future__ import annotations

from dataclasses import dataclass

from robustness_lib.grading.tasks import RoadSignTask

__all__ = ["FIRST", "FORBIDDEN", "SquareTask", "task"]

FORBIDDEN = ("grading/given", "attacks")  # where a step that is to write a part may not look


@dataclass(frozen=True)
class SquareTask(RoadSignTask):
    """What the exercise is about, in one of its variants: a model, ε, a seed, and how many queries there are.

    images: how many of the test set are attacked. seeds: how often the attack is run.
    """

    queries: int = 300
    seeds: int = 1
    behind: float = 0.15  # how far the attack may stay behind the library's

    variants = (("signs-tiny-pgd", 12), ("signs-tiny-standard", 5),
                ("signs-tiny-pgd", 14), ("signs-tiny-standard", 4))


FIRST = SquareTask()


def task(variant: int = 0) -> SquareTask:
    """The exercise in one of its variants."""
    return SquareTask(variant)
