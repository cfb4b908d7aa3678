"""Checks of the exercise `square_attack`: an attack that asks for scores only (Andriushchenko et al. 2020)."""

from robustness_lib.grading.given import square_attack as given
from robustness_lib.grading.square_attack.curve import broken_within
from robustness_lib.grading.square_attack.loop import accept, attack, masked
from robustness_lib.grading.square_attack.picture import side_by_side
from robustness_lib.grading.square_attack.proposals import propose, stripes, window_side
from robustness_lib.grading.square_attack.variants import SquareTask, task

__all__ = ["SquareTask", "accept", "attack", "broken_within", "given", "masked", "propose", "side_by_side", "stripes",
           "task", "window_side"]
