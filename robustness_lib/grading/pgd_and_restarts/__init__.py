"""Checks of the exercise `pgd_and_restarts`: many steps, projected, from several starts (Madry et al. 2018)."""

from robustness_lib.grading.given import pgd_and_restarts as given
from robustness_lib.grading.pgd_and_restarts.allowed_points import project, random_start
from robustness_lib.grading.pgd_and_restarts.comparison import accuracy_after, stronger
from robustness_lib.grading.pgd_and_restarts.one_walk import pgd
from robustness_lib.grading.pgd_and_restarts.picture import broken_by_each, two_walks
from robustness_lib.grading.pgd_and_restarts.several_walks import flat_floor, pgd_with_restarts
from robustness_lib.grading.pgd_and_restarts.variants import PgdAndRestartsTask, task

__all__ = ["PgdAndRestartsTask", "accuracy_after", "broken_by_each", "flat_floor", "given", "pgd", "pgd_with_restarts",
           "project", "random_start", "stronger", "task", "two_walks"]
