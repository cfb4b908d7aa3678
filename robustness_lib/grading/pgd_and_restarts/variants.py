"""What the exercise `pgd_and_restarts` is about, in its variants."""

from __future__ import annotations

from dataclasses import dataclass

from robustness_lib.grading.tasks import RoadSignTask

__all__ = ["FIRST", "GIVEN", "PgdAndRestartsTask", "task"]

GIVEN = "grading/given/pgd_and_restarts/"  # where the parts are that are given


@dataclass(frozen=True)
class PgdAndRestartsTask(RoadSignTask):
    """What the exercise is about, in one of its variants: a model, ε and a seed. images: how many are attacked."""

    variants = (("signs-tiny-pgd", 12), ("signs-tiny-standard", 5),
                ("signs-tiny-pgd", 14), ("signs-tiny-standard", 6))


FIRST = PgdAndRestartsTask()


def task(variant: int = 0) -> PgdAndRestartsTask:
    """The exercise in one of its variants."""
    return PgdAndRestartsTask(variant)
