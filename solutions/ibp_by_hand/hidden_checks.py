"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, ε, seeds and images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import ibp_by_hand as checks

Answer = Callable[..., Any]


def other(task: checks.IntervalsTask) -> checks.IntervalsTask:
    """The exercise in another variant: nothing of the learner's task counts but its variant."""
    return checks.IntervalsTask.for_grading(task)


def through_linear(mine: Answer, task: checks.IntervalsTask) -> Points:
    return checks.through_linear.in_grading(mine, task=other(task), n=11, sizes=(7, 3), points=1)


def through_rising(mine: Answer, task: checks.IntervalsTask) -> Points:
    return checks.through_rising.in_grading(mine, task=other(task), shape=(3, 2, 4, 4), points=1)


def box(mine: Answer, task: checks.IntervalsTask) -> Points:
    """A deeper net with another ε."""
    return checks.box.in_grading(mine, task=other(task), widths=(5, 6, 6, 5, 3), eps=0.15, points=1)


def margins(mine: Answer, task: checks.IntervalsTask) -> Points:
    """On the other shipped network."""
    return checks.margins.in_grading(mine, task=other(task), n=13, name="signs-tiny-standard", points=1)


def verdicts(mine: Answer, task: checks.IntervalsTask) -> Points:
    """With another tolerance."""
    return checks.verdicts.in_grading(mine, task=replace(other(task), tolerance=0.02), n=57, points=1)
