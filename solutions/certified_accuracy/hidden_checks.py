"""What the exercise is graded on beside what the learner sees: the same checks, on other sizes, σ, α and seeds."""

from collections.abc import Callable
from typing import Any

from robustness_lib.grading import Points
from robustness_lib.grading import certified_accuracy as checks

Answer = Callable[..., Any]

_CURVES = (
    ([0.9, 0.8, 0.7, 0.2, 0.1], [0.85, 0.8, 0.65, 0.25, 0.2], [0, 0.12, 0.24, 0.36, 0.48]),
    ([0.6, 0.6, 0.0, 0.0], [0.65, 0.5, 0.5, 0.1], [0.02, 0.3, 0.6, 0.9]),
)


def other(task: checks.CertifiedAccuracyTask) -> checks.CertifiedAccuracyTask:
    """The exercise in another variant: nothing of the learner's task counts but its variant."""
    return checks.CertifiedAccuracyTask.for_grading(task)


def same(task: checks.CertifiedAccuracyTask) -> checks.CertifiedAccuracyTask:
    """The exercise in the learner's variant, otherwise as it is."""
    return checks.CertifiedAccuracyTask.for_grading(task, further=0)


def noise_loss(mine: Answer, task: checks.CertifiedAccuracyTask) -> Points:
    return checks.noise_loss.in_grading(mine, task=other(task), sigma=0.4, shape=(1, 20, 18), n=31, points=1)


def count_votes(mine: Answer, task: checks.CertifiedAccuracyTask) -> Points:
    return checks.count_votes.in_grading(mine, task=other(task), sigma=0.35, images=3, n=71, classes=13, points=2)


def lower_bound(mine: Answer, task: checks.CertifiedAccuracyTask) -> Points:
    cases = (220, 300, 0.02), (41, 47, 0.1), (9_800, 10_000, 0.001)
    return checks.lower_bound.in_grading(mine, task=other(task), cases=cases, points=1)


def certified_radius(mine: Answer, task: checks.CertifiedAccuracyTask) -> Points:
    return checks.certified_radius.in_grading(mine, task=other(task), lowers=(0.51, 0.7, 0.97), sigmas=(0.12, 2.0),
                                              points=1)


def certify(mine: Answer, task: checks.CertifiedAccuracyTask) -> Points:
    return checks.certify.in_grading(mine, task=other(task), n0=20, n=2400, alpha=0.002, points=2)


def certified_accuracy(mine: Answer, task: checks.CertifiedAccuracyTask) -> Points:
    return checks.certified_accuracy.in_grading(mine, task=other(task), n=57, points=1)


def larger_wins(mine: Answer, task: checks.CertifiedAccuracyTask) -> Points:
    return checks.larger_wins.in_grading(mine, task=same(task), curves=_CURVES, points=1)


def attacked_accuracy(mine: Answer, task: checks.CertifiedAccuracyTask) -> Points:
    return checks.attacked_accuracy.in_grading(mine, task=same(task), distances=(0.15, 0.35, 0.35, 0.55),
                                               reach=(0.25, 0.45), points=1)
