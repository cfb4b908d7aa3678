"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, ε, seeds and images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import break_the_defence as checks

Answer = Callable[..., Any]


def other(task: checks.DefenseTask) -> checks.DefenseTask:
    """The exercise in another variant: nothing of the learner's task counts but its variant."""
    return checks.DefenseTask.for_grading(task)


def stands(mine: Answer, task: checks.DefenseTask) -> Points:
    return checks.stands.in_grading(mine, task=other(task), n=41, draws=15, points=1)


def straight_through(mine: Answer, task: checks.DefenseTask) -> Points:
    return checks.straight_through.in_grading(mine, task=other(task), levels=4, shape=(3, 1, 7, 6), points=1)


def eot_gradient(mine: Answer, task: checks.DefenseTask) -> Points:
    return checks.eot_gradient.in_grading(mine, task=other(task), n=8, draws=3, points=1)


def adaptive_attack(mine: Answer, task: checks.DefenseTask) -> Points:
    """On twice as many images and another defense, judged by twice as many answers."""
    return checks.adaptive_attack.in_grading(mine, task=replace(other(task), images=120, judged=31), points=5)


def three_bars(mine: Answer, task: checks.DefenseTask) -> Points:
    return checks.three_bars.in_grading(mine, task=other(task), n=63, draws=7, points=1)
