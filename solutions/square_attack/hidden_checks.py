"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, ε, seeds and images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import square_attack as checks

Answer = Callable[..., Any]


def other(task: checks.SquareTask) -> checks.SquareTask:
    """The exercise in another variant: nothing of the learner's task counts but its variant."""
    return checks.SquareTask.for_grading(task)


def same(task: checks.SquareTask) -> checks.SquareTask:
    """The exercise in the learner's variant, otherwise as it is."""
    return checks.SquareTask.for_grading(task, further=0)


def stripes(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.stripes.in_grading(mine, task=other(task), shape=(40, 2, 9, 14), points=1)


def window_side(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.window_side.in_grading(mine, task=other(task), budgets=(5000, 250, 100), points=1)


def propose(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.propose.in_grading(mine, task=other(task), shape=(30, 2, 10, 10), side=3, points=1)


def accept(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.accept.in_grading(mine, task=other(task), n=31, points=1)


def attack(mine: Answer, task: checks.SquareTask) -> Points:
    """On 300 images with 500 queries, from three seeds, at most ten points behind the library's."""
    full = replace(same(task), images=300, queries=500, seeds=3, behind=0.10)
    return checks.attack.in_grading(mine, task=full, points=5)


def broken_within(mine: Answer, task: checks.SquareTask) -> Points:
    return checks.broken_within.in_grading(mine, task=other(task), n=55, points=1)
