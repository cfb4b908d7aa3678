"""Steps that are done already, on which later steps of an exercise can be built, so that one mistake costs one step."""

from robustness_lib.grading.given import fgsm_first_steps, pgd_and_restarts, square_attack

__all__ = ["fgsm_first_steps", "pgd_and_restarts", "square_attack"]
