"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, ε, β and seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import trades_vs_pgd as checks

Answer = Callable[..., Any]


def other(task: checks.TradesVsPgdTask) -> checks.TradesVsPgdTask:
    """The exercise in another variant: nothing of the learner's task counts but its variant."""
    return checks.TradesVsPgdTask.for_grading(task)


def kl(mine: Answer, task: checks.TradesVsPgdTask) -> Points:
    return checks.kl.in_grading(mine, task=other(task), shape=(11, 3), points=1)


def ascend(mine: Answer, task: checks.TradesVsPgdTask) -> Points:
    return checks.ascend.in_grading(mine, task=other(task), n=9, side=5, steps=8, points=2)


def trades_point(mine: Answer, task: checks.TradesVsPgdTask) -> Points:
    return checks.trades_point.in_grading(mine, task=replace(other(task), steps=7), n=50, side=5, points=1)


def trades_loss(mine: Answer, task: checks.TradesVsPgdTask) -> Points:
    return checks.trades_loss.in_grading(mine, task=other(task), n=7, points=2)


def pgd_loss(mine: Answer, task: checks.TradesVsPgdTask) -> Points:
    return checks.pgd_loss.in_grading(mine, task=replace(other(task), steps=7), n=21, side=5, points=2)


def robust(mine: Answer, task: checks.TradesVsPgdTask) -> Points:
    return checks.robust.in_grading(mine, task=other(task), n=41, points=1)


def which_is_better(mine: Answer, task: checks.TradesVsPgdTask) -> Points:
    return checks.which_is_better.in_grading(mine, task=other(task), n=320, points=1)


def conclude(mine: Answer, task: checks.TradesVsPgdTask) -> Points:
    questions = ("trades-3", "pgd", 100), ("fgsm-rs", "trades-6", 1000), ("standard", "fgsm-rs", 100), \
        ("trades-6", "trades-3", 1000)
    return checks.conclude.in_grading(mine, task=other(task), questions=questions, points=1)
