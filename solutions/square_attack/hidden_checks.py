"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, ε, seeds and images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import square_attack as checks

Answer = Callable[..., Any]


def stripes(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.stripes.in_grading(mine, task=task.other(), shape=(40, 2, 9, 14), points=1)


def window_side(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.window_side.in_grading(mine, task=task.other(), budgets=(5000, 250, 100), points=1)


def propose(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.propose.in_grading(mine, task=task.other(), shape=(30, 2, 10, 10), side=3, points=1)


def accept(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.accept.in_grading(mine, task=task.other(), n=31, points=1)


def attack(mine: Answer, task: checks.SquareTask) -> Points:
    """On 300 images with 500 queries, from three seeds, at most ten points behind the library's."""
    full = replace(task, images=300, queries=500, seeds=3, behind=0.10)
    return checks.attack.in_grading(mine, task=full, points=5)


def broken_within(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.broken_within.in_grading(mine, task=task.other(), n=55, points=1)
