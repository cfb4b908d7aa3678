"""Checks of the exercise `ibp_by_hand`: a certificate by intervals (Gowal et al. 2018)."""

from robustness_lib.grading.given import ibp_by_hand as given
from robustness_lib.grading.ibp_by_hand.one_layer import through_linear, through_rising
from robustness_lib.grading.ibp_by_hand.proofs import margins, verdicts
from robustness_lib.grading.ibp_by_hand.variants import IntervalsTask, task
from robustness_lib.grading.ibp_by_hand.whole_net import box

__all__ = ["IntervalsTask", "box", "given", "margins", "task", "through_linear", "through_rising", "verdicts"]
