"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, ε, seeds and images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import pgd_and_restarts as checks

Answer = Callable[..., Any]


def project(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.project.in_grading(mine, task=task.other(), shape=(9, 1, 6, 4), points=1)


def random_start(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.random_start.in_grading(mine, task=task.other(), shape=(31, 1, 9, 7), points=1)


def pgd(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.pgd.in_grading(mine, task=replace(task.other(), images=80), n=30, steps=11, points=3)


def pgd_with_restarts(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.pgd_with_restarts.in_grading(mine, task=task.other(), n=70, restarts=4, points=2)


def accuracy_after(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.accuracy_after.in_grading(mine, task=task.other(), n=83, restarts=9, points=1)


def stronger(mine: Answer, task: checks.PgdAndRestartsTask) -> Points:
    return checks.stronger.in_grading(mine, task=task.other(), more=True, measure=False, points=1)
