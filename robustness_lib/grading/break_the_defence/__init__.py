"""Checks of the exercise `break_the_defence`: an adaptive attack through a rounding and a random size and place."""

from robustness_lib.grading.break_the_defence.adaptive import adaptive_attack
from robustness_lib.grading.break_the_defence.gradients import eot_gradient, straight_through
from robustness_lib.grading.break_the_defence.standing import stands, three_bars
from robustness_lib.grading.break_the_defence.variants import DefenseTask, task
from robustness_lib.grading.given import break_the_defence as given

__all__ = ["DefenseTask", "adaptive_attack", "eot_gradient", "given", "stands", "straight_through", "task",
           "three_bars"]
