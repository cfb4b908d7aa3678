"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, ε, seeds and images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import pgd_and_restarts as checks

Answer = Callable[..., Any]


def other(task: checks.PgdAndRestartsTask) -> checks.PgdAndRestartsTask:
    """The exercise in another variant: nothing of the learner's task counts but its variant."""
    return checks.PgdAndRestartsTask.for_grading(task)


def project(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.project.in_grading(mine, task=other(task), shape=(9, 1, 6, 4), points=1)


def random_start(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.random_start.in_grading(mine, task=other(task), shape=(31, 1, 9, 7), points=1)


def pgd(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.pgd.in_grading(mine, task=replace(other(task), images=80), n=30, steps=11, points=3)


def pgd_with_restarts(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.pgd_with_restarts.in_grading(mine, task=other(task), n=70, restarts=4, points=2)


def accuracy_after(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.accuracy_after.in_grading(mine, task=other(task), n=83, restarts=9, points=1)


def stronger(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.stronger.in_grading(mine, task=other(task), more=True, measure=False, points=1)
