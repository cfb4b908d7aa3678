"""Checks of the exercise `fgsm_first_steps`: one step along the gradient's sign (Goodfellow et al. 2015)."""

from robustness_lib.grading.fgsm_first_steps.accuracy import still_right
from robustness_lib.grading.fgsm_first_steps.by_hand import margin_drops, smallest_eps
from robustness_lib.grading.fgsm_first_steps.gradient import input_gradient
from robustness_lib.grading.fgsm_first_steps.one_step import fgsm
from robustness_lib.grading.fgsm_first_steps.picture import one_broken
from robustness_lib.grading.fgsm_first_steps.variants import FgsmFirstStepsTask, task
from robustness_lib.grading.given import fgsm_first_steps as given

__all__ = ["FgsmFirstStepsTask", "fgsm", "given", "input_gradient", "margin_drops", "one_broken", "smallest_eps",
           "still_right", "task"]
