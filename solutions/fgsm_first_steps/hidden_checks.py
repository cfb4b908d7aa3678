"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, ε, seeds and images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import fgsm_first_steps as checks

Answer = Callable[..., Any]


def other(task: checks.FgsmFirstStepsTask) -> checks.FgsmFirstStepsTask:
    """The exercise in another variant: nothing of the learner's task counts but its variant."""
    return checks.FgsmFirstStepsTask.for_grading(task)


def input_gradient(mine: Answer, task: checks.FgsmFirstStepsTask) -> Points:
    return checks.input_gradient.in_grading(mine, task=other(task), shape=(9, 1, 5, 8), points=1)


def margin_drops(mine: Answer, task: checks.FgsmFirstStepsTask) -> Points:
    """On five weights."""
    w = (1.5, -0.25, 0.5, -2.0, 0.75 + 0.01 * task.variant)
    return checks.margin_drops.in_grading(mine, task=other(task), w=w, eps=0.03, points=1)


def fgsm(mine: Answer, task: checks.FgsmFirstStepsTask) -> Points:
    return checks.fgsm.in_grading(mine, task=other(task), shape=(10, 1, 9, 7), images=150, points=2)


def still_right(mine: Answer, task: checks.FgsmFirstStepsTask) -> Points:
    return checks.still_right.in_grading(mine, task=replace(other(task), images=300), n=90, points=1)


def smallest_eps(mine: Answer, task: checks.FgsmFirstStepsTask) -> Points:
    return checks.smallest_eps.in_grading(mine, task=other(task), shape=(25, 9), points=1)
