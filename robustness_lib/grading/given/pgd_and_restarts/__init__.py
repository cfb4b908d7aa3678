"""The parts of PGD with restarts (Madry et al. 2018, arXiv 1706.06083)."""

from robustness_lib.grading.given.pgd_and_restarts.ball import project
from robustness_lib.grading.given.pgd_and_restarts.first_points import random_start
from robustness_lib.grading.given.pgd_and_restarts.starts import pgd_with_restarts
from robustness_lib.grading.given.pgd_and_restarts.walk import pgd

__all__ = ["pgd", "pgd_with_restarts", "project", "random_start"]
