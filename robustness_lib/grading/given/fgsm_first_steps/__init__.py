"""The parts of the first attack, FGSM (Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572)."""

from robustness_lib.grading.given.fgsm_first_steps.one_step import fgsm
from robustness_lib.grading.given.fgsm_first_steps.pixels import input_gradient

__all__ = ["fgsm", "input_gradient"]
